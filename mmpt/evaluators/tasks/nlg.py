"""Captioning: the model writes one caption per clip; how close is it to the annotated one?

Words are what spaces separate. A clip with several references has them as the lines of one text.

Letters: N clips.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.bootstrap import Statistic
from mmpt.evaluators.gram_scores import GramKeys
from mmpt.evaluators.metric import CLIP_SETTINGS, Metric, named
from mmpt.evaluators.predictor import Arrays, Predictor, item_name
from mmpt.evaluators.ranking import statistic
from mmpt.evaluators.result import Result
from mmpt.processors.tokens import SpecialIds
from mmpt.registry import METRICS, PREDICTORS
from mmpt.utils.optional import install_line, optional_import

EMPTY = "none"  # stands for a caption without a word


@PREDICTORS.register()
class NLGPredictor(Predictor):
    """`hyps`, the captions that the model writes, and `refs`, those of the data set.

    `gen_param` of the project file holds the options of `MMFusionNLG.generate` (num_beams, length_penalty,
    ...).
    """

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        if "ref" not in batch:
            raise ValueError(
                f"{self.config.source}: the items hold no `ref`; captioning needs dataset.split: test and "
                "DSNLGAligner."
            )
        ids = model.generate(batch["caps"], batch["vfeats"], batch["vmasks"], **(self.config.gen_param or {}))
        return {
            "hyps": [text.strip() or EMPTY for text in self.texts(ids)],
            "refs": list(batch["ref"]),
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


@PREDICTORS.register()
class CaptionPredictor(Predictor):
    """`hyps` and `refs` of a model that writes about items of several modalities (GRAM), from the last of
    `eval.modalities`.

    `gen_param` holds options of `GRAM.generate`: num_beams (3), length_penalty (0.6), max_new (as many tokens
    as a caption has columns). With `draws` N, N captions of each item are drawn instead, a token at a time
    among the `top_k` (10) likeliest; `hyps` are the first of each, `drawn` all, as lines of a text. They
    depend on the seed of the project file and on the item alone.
    """

    Config = GramKeys

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        special, options = SpecialIds.of(self.tokenizer), dict(self.config.gen_param or {})
        draws = options.pop("draws", None)
        caps = batch["caps"][:, 0]
        items = model.encode(
            **{name: x for name, x in batch.items() if name not in ("caps", "cmasks")}, caps=caps
        )
        options = {"max_new": caps.shape[1] - 1, **options}
        if draws:
            options["uniforms"] = self._uniforms(batch["idx"].tolist(), draws, options["max_new"])
        ids = model.generate(
            items, self.config.eval.modalities[-1], caps[:, :1], special.mask, special.sep, **options
        )
        texts = [text.strip() or EMPTY for text in self.texts(ids)]
        drawn = ["\n".join(texts[i : i + draws]) for i in range(0, len(texts), draws)] if draws else None
        return {
            "hyps": texts[:: draws or 1],
            "refs": ["\n".join(references) for references in batch["references"]],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
            **({} if drawn is None else {"drawn": drawn}),
        }

    def _uniforms(self, items: Sequence[int], draws: int, length: int) -> Tensor:
        """(B N, length) draws of each item's own."""
        seed = self.config.trainer.run_seed
        rows = [np.random.default_rng((seed, item)).random((draws, length)) for item in items]
        return torch.from_numpy(np.concatenate(rows)).float()


ORDERS = (1, 2, 3, 4)  # words in an n-gram
BLEU_NAMES = [f"Bleu_{order}" for order in ORDERS]
ROUGE_BETA = 1.2  # weight of recall over precision
CIDER_SIGMA = 6.0  # tolerance to a different length, in words


@METRICS.register()
class NLGMetric(Metric):
    """BLEU-1 to 4 (over all clips together), ROUGE-L and CIDEr (means over clips), METEOR where nltk and its
    WordNet are installed.

    The formulas are those of the MS COCO caption evaluation, which published captioning numbers use;
    `Bleu_*`, `ROUGE_L` and `METEOR` lie in 0..1, `CIDEr` in 0..10. METEOR is nltk's, whose word matching
    differs a little from the original program's. Beside the numbers stand those of one caption, the commonest
    reference, written for every clip.
    """

    best_metric = "Bleu_4"
    published_settings = CLIP_SETTINGS | {"gen_param.num_beams": (5,), "model.max_decode_length": (24,)}

    def files(self, hyps: Sequence[str] = (), ids=None, drawn=None, **_) -> dict[str, Any]:
        """`captions.json`: name of a clip -> list of its captions, the written one or all drawn ones."""
        if ids is None:
            return {}
        texts = map(str, hyps if drawn is None else drawn)
        return {"captions.json": {str(name): text.split("\n") for name, text in zip(ids, texts, strict=True)}}

    def evaluate(self, hyps: Sequence[str], refs: Sequence[str], ids=None, **_) -> Result:
        """Score a run.

        Args:
            hyps: (N) written captions.
            refs: (N) annotated captions, several of a clip as lines.
            ids: (N) names of the clips.
        """
        hyps, refs = list(map(str, hyps)), list(map(str, refs))
        if len(hyps) != len(refs) or not refs:
            raise ValueError(
                f"{len(hyps)} captions for {len(refs)} references; expected one of each per clip, and at "
                "least one clip."
            )
        statistics = bleu_statistics(hyps, refs)
        of_clips = caption_scores(hyps, refs)
        every = [line for ref in refs for line in lines_of(ref)]
        constant = [Counter(every).most_common(1)[0][0]] * len(refs)
        trivial = _values(bleu_statistics(constant, refs), caption_scores(constant, refs))
        everyone = np.arange(len(refs))

        def bleu_of(place: int, index: np.ndarray) -> np.ndarray:
            return bleu(statistics[index])[place]

        judged: dict[str, tuple[np.ndarray, Statistic]] = {
            name: (everyone, functools.partial(bleu_of, place)) for place, name in enumerate(BLEU_NAMES)
        }
        judged |= {name: (score, statistic("mean")) for name, score in of_clips.items()}
        facts: dict[str, Any] = {
            "queries": len(refs),
            "different captions written": len(set(hyps)),
            "different references": len(set(every)),
        }
        if "METEOR" not in of_clips:
            facts["METEOR"] = (
                f"left out: it needs nltk ({install_line('reports', 'nltk')}) and its WordNet (python -m "
                "nltk.downloader wordnet)"
            )
        per_query = {**of_clips, **named(ids)}
        return Result(
            _values(statistics, of_clips),
            self.best_metric,
            self.intervals(judged),
            {"one caption for all": trivial},
            facts,
            per_query,
        )


def _values(statistics: np.ndarray, of_clips: dict[str, np.ndarray]) -> dict[str, float]:
    return dict(zip(BLEU_NAMES, bleu(statistics).tolist(), strict=True)) | {
        name: float(score.mean()) for name, score in of_clips.items()
    }


def lines_of(ref: str) -> list[str]:
    """The references of a clip."""
    return ref.split("\n")


def caption_scores(hyps: Sequence[str], refs: Sequence[str]) -> dict[str, np.ndarray]:
    """The measures that are means over clips, (N) each."""
    scores = {"ROUGE_L": rouge_l(hyps, refs), "CIDEr": cider(hyps, refs)}
    of_meteor = meteor(hyps, refs)
    return scores if of_meteor is None else {**scores, "METEOR": of_meteor}


def bleu_statistics(hyps: Sequence[str], refs: Sequence[str]) -> np.ndarray:
    """Counts (N, 10): n-grams of orders 1 to 4 found in any reference, and written; words written, and of the
    reference that comes closest to it in length."""
    scorer = optional_import("sacrebleu", "reports").BLEU(
        tokenize="none", smooth_method="none", effective_order=True
    )
    found = (scorer.sentence_score(hyp, lines_of(ref)) for hyp, ref in zip(hyps, refs, strict=True))
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], dtype=np.float64)


def bleu(statistics: np.ndarray) -> np.ndarray:
    """BLEU-1 to 4 of clips taken together: geometric mean of the n-gram precisions, times exp(1 - annotated /
    written words) if shorter.

    Args:
        statistics: (..., N, 10), see `bleu_statistics`.

    Returns:
        (4, ...), 0..1 (Papineni et al., ACL 2002, without smoothing).
    """
    total = statistics.sum(-2)
    right, written, own, true = total[..., :4], total[..., 4:8], total[..., 8], total[..., 9]
    with np.errstate(divide="ignore"):
        logs = np.log(right / np.maximum(written, 1)).cumsum(-1) / np.array(ORDERS)
    brevity = np.minimum(0.0, 1 - true / np.maximum(own, 1))
    return np.moveaxis(np.exp(logs + brevity[..., None]), -1, 0)


def rouge_l(hyps: Sequence[str], refs: Sequence[str]) -> np.ndarray:
    """F-measure of the longest common subsequence of words, (N), recall weighing beta = 1.2 (Lin, 2004);
    precision and recall are each those of the best reference."""
    scores = np.zeros(len(refs))
    for i, (hyp, ref) in enumerate(zip(hyps, refs, strict=True)):
        written, true = hyp.split(), [line.split() for line in lines_of(ref)]
        common = [common_subsequence(written, words) for words in true]
        if any(common):
            precision = max(common) / len(written)
            recall = max(n / len(words) for n, words in zip(common, true, strict=True) if n)
            scores[i] = (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
    return scores


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[j]))
    return row[-1]


def cider(hyps: Sequence[str], refs: Sequence[str]) -> np.ndarray:
    """CIDEr-D of each clip, (N), 0..10: cosines of tf-idf weighted n-grams, clipped and damped where lengths
    differ, averaged over the references of the clip.

    Vedantam et al., CVPR 2015, equations 1 to 4; a document is the references of one clip together.
    """
    documents = [[ngrams(line) for line in lines_of(ref)] for ref in refs]
    frequency = Counter(gram for document in documents for gram in set().union(*document))
    return np.array(
        [
            np.mean([_cider_of(ngrams(hyp), ref, frequency, len(refs)) for ref in document])
            for hyp, document in zip(hyps, documents, strict=True)
        ]
    )


def ngrams(text: str) -> Counter:
    """Occurrences of each n-gram of orders 1 to 4."""
    words = text.split()
    return Counter(tuple(words[i : i + order]) for order in ORDERS for i in range(len(words) - order + 1))


def _cider_of(hyp: Counter, ref: Counter, frequency: Counter, n_documents: int) -> float:
    def weights(grams: Counter, order: int) -> dict[tuple, float]:
        rare = {gram: np.log(n_documents / max(frequency[gram], 1)) for gram in grams if len(gram) == order}
        return {gram: grams[gram] * weight for gram, weight in rare.items()}

    longer = sum(count for gram, count in hyp.items() if len(gram) == 2) - sum(
        count for gram, count in ref.items() if len(gram) == 2
    )
    total = 0.0
    for order in ORDERS:
        own, true = weights(hyp, order), weights(ref, order)
        norm = np.linalg.norm(list(own.values())) * np.linalg.norm(list(true.values()))
        if norm:
            total += (
                sum(min(weight, true[gram]) * true[gram] for gram, weight in own.items() if gram in true)
                / norm
            )
    return 10 * total / len(ORDERS) * float(np.exp(-(longer**2) / (2 * CIDER_SIGMA**2)))


def meteor(hyps: Sequence[str], refs: Sequence[str]) -> np.ndarray | None:
    """METEOR of each clip by nltk (Banerjee and Lavie, 2005), (N), of the best reference; None where nltk or
    its WordNet data are not installed.
    """
    try:
        from nltk.translate.meteor_score import meteor_score

        pairs = zip(hyps, refs, strict=True)
        return np.array(
            [meteor_score([line.split() for line in lines_of(ref)], hyp.split()) for hyp, ref in pairs]
        )
    except (ImportError, LookupError):  # WordNet is looked up with the first word
        return None
