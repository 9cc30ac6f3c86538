"""Action recognition over the splits of UCF101 or HMDB51: by class names, by a linear probe, by nearest
neighbours; of a two-tower model, or of every modality of an N-modal one.

Letters: N vectors (videos or their clips), M of them with known labels (of N-modal models: videos), D width,
C classes, R splits, K modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mmpt.evaluators.gram_scores import SubsetKeys
from mmpt.evaluators.metric import Metric, named
from mmpt.evaluators.predictor import Arrays, Predictor, check_finite, item_name, text_vectors
from mmpt.evaluators.ranking import ScoreMatrix, chance, count_ranks, statistic
from mmpt.evaluators.result import Result
from mmpt.processors.sets.recognition import TEST, TRAIN
from mmpt.registry import METRICS, PREDICTORS

WEIGHT_DECAY = 1e-3
PROBE_STEPS = 200
NEIGHBOURS = (1, 5, 10, 20, 50)
LOWEST = -2.0  # below any cosine: a class without training videos


def probe_scores(vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Logits (N, C) of a linear classifier fitted by L-BFGS: the same result in every run.

    Args:
        vectors: (N, D) unit rows.
        train: (M, D) unit rows to fit.
        labels: (M) their classes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        train, labels = train.clone(), labels.clone()
        weight, bias = (
            torch.zeros(n_classes, train.shape[1], requires_grad=True),
            torch.zeros(n_classes, requires_grad=True),
        )
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = cross_entropy(train @ weight.T + bias, labels) + WEIGHT_DECAY * weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    return vectors @ weight.detach().T + bias.detach()


def neighbour_scores(
    vectors: Tensor, train: Tensor, labels: Tensor, own: Tensor, n_classes: int
) -> tuple[Tensor, Tensor]:
    """Scores (N, C), the cosine of each class's nearest training vector, and the rank (N,) of the nearest one
    of the right class.

    Args:
        vectors: (N, D) unit rows.
        train: (M, D) unit rows.
        labels: (M) their classes.
        own: (N) right classes.
    """
    cosine = vectors @ train.T  # (N, M)
    best = cosine.new_full((len(vectors), n_classes), LOWEST).scatter_reduce(
        1, labels.expand_as(cosine), cosine, "amax"
    )
    return best, 1 + (cosine > best.gather(1, own[:, None])).sum(1)


class RecognitionPredictor(Predictor):
    """`vectors` (N, D) of the videos by the model's video side, `labels` (N), `splits` (N, R) with 1
    training, 2 test, 0 unused."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        pooled = model.forward_video(batch["vfeats"], batch["vmasks"], batch["caps"], batch["cmasks"]).pooled
        return {
            "vectors": check_finite(pooled.float(), batch["video_id"]),
            "labels": batch["label"],
            "splits": batch["splits"],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        arrays = self.per_video(arrays)
        vectors, labels = torch.from_numpy(arrays.pop("vectors")), torch.from_numpy(arrays["labels"])
        n_classes = len(dataset.meta_processor.class_names)
        return arrays | {
            "scores": self.scores(normalize(vectors, dim=-1), labels, arrays["splits"], n_classes)
        }

    def per_video(self, arrays: Arrays) -> Arrays:
        """The arrays of videos, where batches hold clips of them."""
        return arrays

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        """(R, N, C), from unit vectors; every split has its own training videos."""
        of_splits = []
        for number, split in enumerate(splits.T, start=1):
            train = torch.from_numpy(split == TRAIN)
            if not train.any():
                raise ValueError(f"split {number} has no training video (entry {TRAIN}).")
            of_splits.append(self.class_scores(vectors, vectors[train], labels[train], n_classes))
        return torch.stack(of_splits).numpy()

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        """(N, C) of one split, from its training videos (M, D) and their labels (M)."""
        raise NotImplementedError


@PREDICTORS.register()
class RecognitionZSPredictor(RecognitionPredictor):
    """Scores are dot products with the text vectors of the class names (`meta_processor.class_names`);
    nothing is trained."""

    def begin(self, dataset: Any, model: nn.Module, device: torch.device) -> None:
        names = dataset.meta_processor.class_names
        self.class_vectors = text_vectors(names, dataset, model, device).cpu()

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        """(N, C): a video's length changes no order of its classes, so unit vectors do."""
        return (vectors @ self.class_vectors.T).numpy()


@PREDICTORS.register()
class RecognitionProbePredictor(RecognitionPredictor):
    """A linear classifier on frozen unit vectors, fitted to each split's training videos by L-BFGS: the same
    result in every run."""

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        return probe_scores(vectors, train, labels, n_classes)


@PREDICTORS.register()
class RecognitionNNPredictor(RecognitionPredictor):
    """A class scores the cosine of its nearest training video: accuracy is that of the nearest neighbour.

    Also gives `neighbour_ranks` (R, N), the place of the nearest training video of the right class among all
    training videos.
    """

    def scores(self, vectors: Tensor, labels: Tensor, splits: np.ndarray, n_classes: int) -> np.ndarray:
        self.labels = labels
        self.ranks: list[Tensor] = []
        return super().scores(vectors, labels, splits, n_classes)

    def class_scores(self, vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        scores, ranks = neighbour_scores(vectors, train, labels, self.labels, n_classes)
        self.ranks.append(ranks)
        return scores

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        arrays = super().finish(arrays, dataset, model)
        return arrays | {"neighbour_ranks": torch.stack(self.ranks).numpy()}


@METRICS.register()
class ActionRecognitionMetric(Metric):
    """Accuracy of the highest class score, and R1, R5, R10 of the right class, per split and averaged over
    splits.

    Rows of the same id are clips of one video: it is judged by the mean of their scores.

    With `neighbour_ranks`, R1 to R50 are those of the nearest training video of the right class among all
    training videos, the protocol of video retrieval (GDT, STiCA).
    """

    best_metric = "split1-acc"

    def evaluate(self, scores, labels, splits, ids=None, neighbour_ranks=None, folds=None, **_) -> Result:
        """Score a run.

        Args:
            scores: (N, classes), or (splits, N, classes) where each split has its own classifier.
            labels: (N) right class.
            splits: (N, splits) 2 where a video is in the split's test part.
            ids: (N) names of the videos; null: each row is one.
            neighbour_ranks: (splits, N).
            folds: numbers of the splits; null: from 1 on.
        """
        scores, labels, splits = np.asarray(scores), np.asarray(labels), np.asarray(splits)
        if scores.ndim == 2:
            scores = np.broadcast_to(scores, (splits.shape[1], *scores.shape))
        if ids is not None and neighbour_ranks is None:
            scores, labels, splits, ids = mean_over_clips(scores, labels, splits, np.asarray(ids))
        names = {"acc": "mean"} | {
            f"R{k}": f"R{k}" for k in ((1, 5, 10) if neighbour_ranks is None else NEIGHBOURS)
        }
        numbers = list(range(1, splits.shape[1] + 1)) if folds is None else np.asarray(folds).tolist()
        values, found, tied, judged_ranks, judged_ids = {}, {}, 0, [], []
        for column, (number, split, of_split) in enumerate(zip(numbers, splits.T, scores, strict=True)):
            test = split == TEST
            counts = count_ranks(ScoreMatrix(torch.tensor(of_split)), labels)
            tied += int((counts.tied[test] > 0).sum())
            ranks = self.ranks(counts) if neighbour_ranks is None else np.asarray(neighbour_ranks)[column]
            right = (of_split.argmax(1) == labels).astype(float)
            if not test.any():
                raise ValueError(f"split {number} has no test video (entry {TEST}).")
            judged_ranks.append(ranks[test])
            judged_ids += [
                f"split{number} {name}"
                for name in (np.arange(len(labels)) if ids is None else np.asarray(ids))[test]
            ]
            for name, of in names.items():
                judged = (right if name == "acc" else ranks)[test]
                values[f"split{number}-{name}"] = float(statistic(of)(judged))
                found[f"split{number}-{name}"] = judged, statistic(of)
        for name in names:
            values[f"mean-{name}"] = float(np.mean([values[f"split{number}-{name}"] for number in numbers]))
        level = chance(scores.shape[2])
        of_chance = {name: level[name] for name in ("R1", "R5", "R10")} if neighbour_ranks is None else {}
        facts = {
            "videos": len(labels),
            "classes": scores.shape[2],
            "splits": splits.shape[1],
            "tied queries": tied,
        }
        baselines = {"chance": {"acc": level["R1"], **of_chance}}
        return Result(
            values,
            f"split{numbers[0]}-acc",
            self.intervals(found),
            baselines,
            facts,
            {"ranks": np.concatenate(judged_ranks), **named(judged_ids)},
        )


def mean_over_clips(
    scores: np.ndarray, labels: np.ndarray, splits: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Scores (R, V, C), labels (V), splits (V, R) and ids (V) of videos, from those of their clips (R, N, C),
    (N), (N, R), (N).

    Raises:
        ValueError: clips of a video differ in label or split.
    """
    names, first, video = np.unique(ids, return_index=True, return_inverse=True)
    differ = (labels != labels[first][video]) | (splits != splits[first][video]).any(1)
    if differ.any():
        raise ValueError(
            f"clips of video {ids[differ][0]} differ in their label or split; they are averaged as one video."
        )
    total = np.zeros((len(scores), len(names), scores.shape[2]))
    np.add.at(total, (slice(None), video), scores)
    return total / np.bincount(video)[:, None], labels[first], splits[first], names


@PREDICTORS.register()
class ModalityRecognitionPredictor(Predictor):
    """`pooled_<modality>` (M, D) and `present` (M, K) of the videos, their `labels` (M), `splits` (M, R),
    `ids`, and the class names."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        own = {name: value for name, value in batch.items() if name not in ("caps", "cmasks")}
        items = model.encode_items(batch["caps"][:, 0], batch["cmasks"][:, 0], **own)
        return {
            **{
                f"pooled_{name}": check_finite(items[f"pooled_{name}"], batch["video_id"])
                for name in model.names
            },
            "present": torch.stack([items["present"][name] for name in model.names], dim=1),
            "labels": batch["label"],
            "splits": batch["splits"],
            "ids": list(batch["video_id"]),
        }

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        names = list(dataset.meta_processor.class_names)
        return arrays | {"modalities": list(model.names), "class_names": names}


@METRICS.register()
class ModalityRecognitionMetric(Metric):
    """Video retrieval by nearest neighbours and a linear probe, for each of `eval.modalities`: the protocol
    of GDT and STiCA.

    A subset is the first letters of modalities whose unit vectors are put side by side: `v`, `a`, `va`; null:
    each alone, then all. For each split, `<subset>-nn-R1` to `R50` say how often one of the k nearest
    training videos has the class of the test video, `<subset>-probe-acc` how often a linear classifier fitted
    to the training videos is right; both are means over splits. Videos that lack a modality of the subset are
    left out of it.
    """

    Config = SubsetKeys

    best_metric = "nn-R1"  # of the last subset

    def evaluate(
        self, labels=None, splits=None, modalities=(), class_names=(), present=None, ids=(), **arrays
    ) -> Result:
        """Score what `ModalityRecognitionPredictor` returns.

        Args:
            labels: (M) class of each video.
            splits: (M, R) 1 training, 2 test, 0 unused.
            modalities: names of K arrays `pooled_<name>` (M, D).
            class_names: C names.
            present: (M, K) bool; None: all there.
            ids: (M) names of the videos.
            arrays: the embeddings.

        Raises:
            ValueError: an unknown subset, or a split without training or test videos.
        """
        labels, splits, names = (
            torch.as_tensor(labels),
            np.asarray(splits),
            [str(name) for name in modalities],
        )
        there = np.ones((len(labels), len(names)), dtype=bool) if present is None else np.asarray(present)
        values, judged, per_query, counts, asked = {}, {}, {}, {}, {}
        for subset in self.config.modalities or [
            *(name[0] for name in names),
            "".join(name[0] for name in names),
        ]:
            columns = columns_of(subset, names)
            vectors = [
                normalize(torch.as_tensor(arrays[f"pooled_{names[k]}"]).float(), dim=1) for k in columns
            ]
            usable = there[:, columns].all(1)
            found = [
                self._split(
                    normalize(torch.cat(vectors, 1), dim=1),
                    labels,
                    tags * usable,
                    len(class_names),
                    f"split {number} of {subset}",
                )
                for number, tags in enumerate(splits.T, start=1)
            ]
            counts[subset] = int(usable.sum())
            for measure, of in {"probe-acc": "mean", **{f"nn-R{k}": f"R{k}" for k in NEIGHBOURS}}.items():
                of_splits = [one["hits" if of == "mean" else "ranks"] for one in found]
                name = f"{subset}-{measure}"
                values[name] = float(np.mean([statistic(of)(of_split) for of_split in of_splits]))
                judged[name] = np.concatenate(of_splits), statistic(of)
            per_query[f"{subset}-probe-acc"] = np.concatenate([one["hits"] for one in found])
            asked[subset] = [len(one["ranks"]) for one in found]
            per_query[f"ranks_{subset}-nn"] = np.concatenate([one["ranks"] for one in found])
        chance = {
            name: 1 / len(class_names) for name in ("R1", "acc", *values) if name.endswith(("R1", "acc"))
        }
        facts = {
            "videos": len(labels),
            "classes": len(class_names),
            "splits": splits.shape[1],
            "videos with": counts,
            "queries of each split": asked,
        }
        best, intervals = f"{subset}-{self.best_metric}", self.intervals(judged)
        return Result(values, best, intervals, {"chance": chance}, facts, per_query)

    def _split(
        self, vectors: Tensor, labels: Tensor, tags: np.ndarray, n_classes: int, name: str
    ) -> dict[str, Any]:
        """`hits` of the probe and `ranks` of the nearest right neighbour, one for each test video."""
        train, test = (torch.from_numpy(tags == tag) for tag in (TRAIN, TEST))
        if not train.any() or not test.any():
            raise ValueError(f"{name} has no {'test' if train.any() else 'training'} video that can be used.")
        known = vectors[train], labels[train]
        probe = probe_scores(vectors[test], *known, n_classes).argmax(1) == labels[test]
        _, ranks = neighbour_scores(vectors[test], *known, labels[test], n_classes)
        return {"hits": probe.double().numpy(), "ranks": ranks.numpy()}


def columns_of(subset: str, names: Sequence[str]) -> list[int]:
    """`va` -> [0, 1] of [video, audio].

    Raises:
        ValueError: a letter is unknown or repeated.
    """
    letters = [name[0] for name in names]
    if not subset or len(set(subset)) < len(subset) or not set(subset) <= set(letters):
        known = ", ".join(f"{name[0]} ({name})" for name in names)
        raise ValueError(
            f"eval.modalities: {subset!r} is no subset; expected first letters among {known}, each once."
        )
    return [letters.index(letter) for letter in subset]
