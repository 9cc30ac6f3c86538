"""Captioning measures against sacrebleu, slow formulas and closed forms."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import Config, EvalConfig
from mmpt.evaluators import NLGMetric, NLGPredictor
from mmpt.evaluators.tasks.nlg import bleu, bleu_statistics, cider, common_subsequence, meteor, rouge_l
from tests.conftest import golden_cases, load_golden
from tests.mmpt_cli.toy_plugin import Words

REFS = [
    "chop the onion on a board",
    "fry the egg in the pan",
    "add salt to the pan and stir",
    "serve it on a plate now",
]
HYPS = ["chop the onion on it", "fry the onion in the pan", "add salt and stir well in the pan", "none"]


def test_bleu_is_that_of_sacrebleu_over_the_corpus():
    sacrebleu = pytest.importorskip("sacrebleu")
    found = bleu(bleu_statistics(HYPS, REFS))
    for order in (1, 2, 3, 4):
        scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        assert found[order - 1] == pytest.approx(scorer.corpus_score(HYPS, [REFS]).score / 100)


def test_bleu_of_a_batch_of_draws_is_that_of_each_draw():
    statistics = bleu_statistics(HYPS, REFS)
    draws = np.array([[0, 1, 1, 2], [3, 3, 3, 3]])
    assert bleu(statistics[draws])[3].tolist() == [bleu(statistics[draw])[3] for draw in draws]


@pytest.mark.parametrize("case", golden_cases("release_capmetrics*.npz"))
def test_golden_release_capmetrics_with_several_references(case):
    golden = load_golden(case)
    hyps, refs = json.loads(golden["hyps_json"].item()), json.loads(golden["refs_json"].item())
    refs = ["\n".join(lines) for lines in refs]
    # the original adds 1e-9 to its counts
    np.testing.assert_allclose(bleu(bleu_statistics(hyps, refs)), golden["bleu"], rtol=1e-8)
    np.testing.assert_allclose(rouge_l(hyps, refs), golden["rouge_l_per_item"], rtol=1e-12)
    np.testing.assert_allclose(cider(hyps, refs), golden["cider_per_item"], rtol=1e-12)
    found = NLGMetric(EvalConfig(bootstrap=0)).evaluate(hyps, refs).values
    assert found["CIDEr"] == pytest.approx(golden["cider"].item(), rel=1e-12)
    assert found["ROUGE_L"] == pytest.approx(golden["rouge_l"].item(), rel=1e-12)


def test_a_short_caption_without_higher_ngrams_has_no_bleu_4():
    assert bleu(bleu_statistics(["none"], ["serve it"])).tolist() == [0, 0, 0, 0]


def test_the_common_subsequence_is_the_longest_of_all():
    a, b = "a b c b d a b".split(), "b d c a b a".split()
    of_a, of_b = ({words for n in range(len(text) + 1) for words in combinations(text, n)} for text in (a, b))
    assert common_subsequence(a, b) == max(map(len, of_a & of_b)) == 4


def test_rouge_weighs_recall_by_beta():
    assert rouge_l(["chop the onion"], ["chop the onion on a board"])[0] == pytest.approx(
        2.44 * 0.5 / (0.5 + 1.44)
    )
    assert rouge_l(["serve"], ["fry it"])[0] == 0


def test_cider_of_the_reference_itself_is_ten():
    assert cider(REFS, REFS) == pytest.approx(10)


def test_cider_of_two_words_follows_the_formula():
    refs = ["fry egg", "cut egg"]  # egg stands in both: weight 0
    expected = (
        10 / 4 * (1 + 0)
    )  # order 1: only `fry` counts; order 2: `fry pan` is unknown, norm of the reference only
    assert cider(["fry pan", "cut egg"], refs)[0] == pytest.approx(expected / np.sqrt(2), rel=1e-6)


def test_repeating_a_rare_word_does_not_help_cider():
    once, often = (
        cider(["fry", "x", "x", "x"], REFS[1:] + REFS[:1])[0],
        cider(["fry fry fry fry", "x", "x", "x"], REFS[1:] + REFS[:1])[0],
    )
    assert often < once


def test_cider_is_clipped_and_damped_by_the_difference_in_length():
    expected = (
        10 / 4 * (1 / 2 + 1 / np.sqrt(5)) * np.exp(-(2**2) / (2 * 6**2))
    )  # bigrams written: ab, ba, ab; annotated: ab
    assert cider(["a b a b", "c d"], ["a b", "c d"])[0] == pytest.approx(expected)


def test_the_outcome_stands_beside_one_caption_for_all():
    result = NLGMetric(EvalConfig(bootstrap=50)).evaluate(HYPS, REFS, ids=list("abcd"))
    assert set(result.values) >= {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"}
    assert 0 < result.best < 1 and result.baselines["one caption for all"]["Bleu_1"] < result.values["Bleu_1"]
    for name, (low, high) in result.intervals.items():
        assert low <= result.values[name] <= high
    assert result.per_query["ids"].tolist() == list("abcd") and len(result.per_query["CIDEr"]) == 4


def test_perfect_captions_score_perfectly():
    values = NLGMetric(EvalConfig(bootstrap=0))(hyps=REFS, refs=REFS)
    assert [values[name] for name in ("Bleu_1", "Bleu_4", "ROUGE_L")] == [1, 1, 1] and values[
        "CIDEr"
    ] == pytest.approx(10)


def test_captions_without_reference_are_refused():
    with pytest.raises(ValueError, match="2 captions for 1 references"):
        NLGMetric(EvalConfig()).evaluate(["a", "b"], ["a"])


@pytest.fixture
def wordnet(monkeypatch):
    """Sets what nltk's WordNet, whose data may not be installed, answers."""
    corpus = pytest.importorskip("nltk.corpus").wordnet
    return lambda synsets: monkeypatch.setitem(vars(corpus), "synsets", synsets)


def test_meteor_matches_stems_and_punishes_gaps(wordnet):
    wordnet(lambda word: [])  # no synonyms
    precision, recall, chunks = 1, 3 / 4, 2  # "chop" by its stem, then "red onion"
    expected = precision * recall / (0.9 * precision + 0.1 * recall) * (1 - 0.5 * (chunks / 3) ** 3)
    assert meteor(["chopping red onion"], ["chop the red onion"])[0] == pytest.approx(expected)


def test_without_wordnet_the_report_says_that_meteor_is_left_out(wordnet):
    def absent(word):
        raise LookupError("Resource wordnet not found.")

    wordnet(absent)
    result = NLGMetric(EvalConfig(bootstrap=0)).evaluate(hyps=HYPS, refs=REFS)
    assert "METEOR" not in result.values and "nltk.downloader wordnet" in result.facts["METEOR"]


def test_with_wordnet_meteor_stands_among_the_numbers(wordnet):
    wordnet(lambda word: [])
    result = NLGMetric(EvalConfig(bootstrap=10)).evaluate(hyps=REFS, refs=REFS)
    assert result.values["METEOR"] > 0.99 and "METEOR" in result.intervals and "METEOR" not in result.facts


class Writer(nn.Module):
    """Writes the ids that it sees in the features."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def generate(self, caps, vfeats, vmasks, num_beams=1):
        self.num_beams = num_beams
        return vfeats[:, :, 0].long()


BATCH = {
    "caps": torch.zeros(2, 3),
    "vfeats": torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]]),
    "vmasks": torch.ones(2, 2, dtype=torch.bool),
}


def test_captions_are_decoded_and_an_empty_one_is_none():
    model = Writer()
    predictor = NLGPredictor(Config(gen_param={"num_beams": 5}), Words())
    arrays = predictor([BATCH | {"ref": ["fry it", "cut it"], "video_id": [("a", 0, 4), ("a", 4, 9)]}], model)
    assert arrays == {
        "hyps": ["word3 word4", "none"],
        "refs": ["fry it", "cut it"],
        "ids": ["a_0_4", "a_4_9"],
    }
    assert model.num_beams == 5


def test_items_without_reference_name_the_split():
    with pytest.raises(ValueError, match="dataset.split: test"):
        NLGPredictor(Config(), Words())([BATCH | {"video_id": ["a", "b"]}], Writer())
