"""Retrieval by volume: ranks and reports from arrays, and a run on the toy world."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.config import EvalConfig, load_config
from mmpt.datasets import build_dataset
from mmpt.evaluators import Evaluator, GramPredictor, GramRetrievalMetric
from mmpt.evaluators.alignment_report import alignment, spearman
from mmpt.evaluators.gram_scores import SCORES, ItemSet, Scorer, compare
from mmpt.evaluators.ranking import RankCounts
from mmpt.evaluators.tasks.gram import both_directions, reranked, top_candidates
from mmpt.historic.ranking import candidates_alone
from mmpt.models import build_model
from mmpt_cli import predict
from tests.conftest import ROOT, golden_cases, load_golden

CONFIG = EvalConfig(bootstrap=0)


def golden_arrays(golden):
    """What the predictor would return."""
    names = golden["modalities"].tolist()
    arrays = {f"pooled_{name}": golden[f"mod_{k}"] for k, name in enumerate(names)}
    return {"pooled_text": golden["anchor"], "modalities": names, **arrays}


def percent(ranks):
    recall = [round(100 * float((ranks <= k).mean()), 1) for k in (1, 5, 10)]
    return [*recall, round(sum(100 * float((ranks <= k).mean()) for k in (1, 5, 10)) / 3, 1)]


def values_of(values, measure):
    return [100 * values[f"{measure}-{name}"] for name in ("R1", "R5", "R10", "Ravg")]


@pytest.mark.parametrize("path", golden_cases("gram_eval_[0-9]*.npz"))
def test_golden_gram_eval_volume_retrieval(path):
    golden = load_golden(path)
    result = GramRetrievalMetric(CONFIG).evaluate(**golden_arrays(golden))
    subset = "t" + "".join(name[0] for name in golden["modalities"])
    np.testing.assert_allclose(values_of(result.values, f"{subset}-volume"), golden["t2d"], atol=0.051)
    np.testing.assert_allclose(values_of(result.values, f"{subset}-volume-D2T"), golden["d2t"], atol=0.051)
    report = result.facts[f"alignment {subset}"]
    assert report["minimal_volume"] == pytest.approx(float(golden["gramian_value"]), abs=1e-4)
    assert report["positive_volume"] == pytest.approx(float(golden["mean_positive_volume"]), abs=1e-4)


def test_modalities_that_a_model_embeds_together_are_compared_by_cosine():
    rng = torch.Generator().manual_seed(0)
    x = {name: torch.randn(5, 4, generator=rng) for name in ("pooled_text", "pooled_video", "pooled_audio")}
    joint = {"joint_va": x["pooled_text"] + 0.01 * x["pooled_audio"], "joint_v": x["pooled_video"]}
    config = replace(CONFIG, modalities=["tav"], scores=["joint"])
    present = torch.ones(5, 2, dtype=torch.bool)
    evaluate = GramRetrievalMetric(config).evaluate
    arrays = {**x, "modalities": ["video", "audio"], "present": present}
    assert evaluate(**arrays, **joint).values["tav-joint-R1"] == 1
    present[2, 1] = False  # an item that lacks one of them is not found
    assert evaluate(**arrays, **joint).values["tav-joint-R1"] == 0.8
    with pytest.raises(ValueError, match="does not embed va together; expected modalities among v"):
        evaluate(**arrays, joint_v=joint["joint_v"])
    with pytest.raises(ValueError, match="does not embed av together; set model.model_cls: GRAM"):
        evaluate(**arrays)


@pytest.mark.parametrize("path", golden_cases("gram_eval_[0-9]*.npz"))
def test_golden_gram_eval_cosine_of_the_first_modality(path):
    golden = load_golden(path)
    config = replace(CONFIG, modalities=["t" + golden["modalities"][0][0]], scores=["cosine"])
    values = GramRetrievalMetric(config)(**golden_arrays(golden))
    np.testing.assert_allclose(
        values_of(values, f"{config.modalities[0]}-cosine"), golden["cosine_video_t2d"], atol=0.051
    )


@pytest.mark.parametrize("path", golden_cases("gram_eval_[0-9]*.npz"))
@pytest.mark.parametrize("direction", ["t2d", "d2t"])
def test_golden_gram_eval_reranking(path, direction):
    golden = load_golden(path)
    transposed = direction == "d2t"
    arrays = golden_arrays(golden)
    compared = compare(arrays, arrays["modalities"], "t" + "".join(name[0] for name in arrays["modalities"]))
    scorer = Scorer(compared.queries, compared.items, "volume")
    prob = torch.tensor(golden["match_prob"].T.copy() if transposed else golden["match_prob"])
    best = top_candidates(scorer, int(golden["rerank_num"]), transposed)
    scores = candidates_alone(scorer.rows(slice(0, len(prob)), transposed), best, prob.gather(1, best))
    expected = golden[f"rerank_{direction}_matrix"]
    np.testing.assert_allclose(scores, expected.T if transposed else expected, atol=1e-12)
    both = {"rerank": None, "rerank_d2t": None} | {
        "rerank_d2t" if transposed else "rerank": lambda tile, rows: reranked(
            tile, best[rows], prob[rows].gather(1, best[rows]), "replace"
        )
    }
    ranks = both_directions("m", scorer, torch.arange(len(prob)), RankCounts.ranks, **both)[
        "m-D2T" if transposed else "m"
    ]
    np.testing.assert_allclose(percent(ranks), golden[f"rerank_{direction}"], atol=0.051)


@pytest.mark.parametrize("path", golden_cases("gram_eval_multicap*.npz"))
def test_golden_gram_eval_multicap(path):
    golden = load_golden(path)
    targets = np.array([golden["ids"].tolist().index(name) for name in golden["ids_txt"]])
    values = GramRetrievalMetric(CONFIG)(**golden_arrays(golden), targets=targets)
    np.testing.assert_allclose(values_of(values, "tva-volume"), golden["t2d"], atol=0.051)
    np.testing.assert_allclose(values_of(values, "tva-volume-D2T"), golden["d2t"], atol=0.051)


def tuples(n_texts=13, n_items=9, k=3, width=8, seed=0, missing=True):
    rng = torch.Generator().manual_seed(seed)
    mask = (
        torch.rand(n_items, k, generator=rng) > 0.3 if missing else torch.ones(n_items, k, dtype=torch.bool)
    )
    mask[:, 0] |= ~mask.any(1)
    drawn = [torch.randn(n, width, generator=rng, dtype=torch.float64) for n in (n_texts, *[n_items] * k)]
    draw = [torch.nn.functional.normalize(x, dim=1) for x in drawn]
    return draw[0], ItemSet.of(draw[1:], mask)


def slow_score(text, vectors, score, dim_norm):
    """One text, one list of vectors, by determinants."""
    volume = lambda *rows: torch.linalg.det(torch.stack(rows) @ torch.stack(rows).T).clamp_min(0).sqrt()  # noqa: E731
    root = 1 / len(vectors) if dim_norm else 1.0
    if score == "cosine":
        return torch.stack([text @ x for x in vectors]).mean()
    if score == "eigenvalue":
        rows = torch.stack([text, *vectors])
        return torch.linalg.eigvalsh(rows @ rows.T)[-1] / len(rows)
    if score == "triangle":
        return -(volume(*(x - vectors[0] for x in (text, *vectors[1:]))) ** root)
    if score == "distance":
        return -(volume(text, *vectors) / volume(*vectors))
    both = volume(text, *vectors) ** root
    return -both.log() if score == "logvolume" else -both


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("missing", [False, True])
def test_every_score_equals_a_slow_loop_over_pairs(score, missing):
    texts, items = tuples(missing=missing)
    expected = torch.stack(
        [
            torch.stack(
                [
                    slow_score(
                        t, [x[j] for k, x in enumerate(items.modalities) if items.mask[j, k]], score, missing
                    )
                    for t in texts
                ]
            )
            for j in range(9)
        ]
    ).T
    scorer = Scorer(texts, items, score)
    torch.testing.assert_close(scorer.rows(slice(0, 13)), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        scorer.rows(slice(2, 5), transposed=True), expected.T[2:5], atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("score", SCORES)
def test_blocks_do_not_change_ranks(score, monkeypatch):
    texts, items = tuples()
    targets = torch.arange(13) % 9
    whole = both_directions("m", Scorer(texts, items, score), targets, RankCounts.ranks)
    for name, numbers in ("BLOCK_NUMBERS", 64), ("EIGEN_NUMBERS", 512), ("ITEM_BLOCK", 4):
        monkeypatch.setattr(f"mmpt.evaluators.gram_scores.{name}", numbers)
    for name, ranks in both_directions("m", Scorer(texts, items, score), targets, RankCounts.ranks).items():
        np.testing.assert_array_equal(ranks, whole[name])


@pytest.mark.parametrize("score", SCORES)
def test_what_stands_in_the_place_of_a_missing_modality_is_ignored(score):
    texts, items = tuples(missing=True)
    values = (torch.nan, 7.0, -torch.inf)
    junk = [
        x.where(items.mask[:, k, None], value)
        for k, (x, value) in enumerate(zip(items.modalities, values, strict=True))
    ]
    found = Scorer(texts, ItemSet.of(junk, items.mask), score).rows(slice(0, 13))
    torch.testing.assert_close(found, Scorer(texts, items, score).rows(slice(0, 13)))
    names = ["text", "video", "audio", "subtitle"]
    assert alignment(texts[:9], ItemSet.of(junk, items.mask), torch.arange(9), names) == alignment(
        texts[:9], items, torch.arange(9), names
    )


def test_an_item_without_any_modality_is_last():
    texts, items = tuples(missing=False)
    mask = items.mask.clone()
    mask[4] = False
    scores = Scorer(texts, ItemSet.of(items.modalities, mask), "volume").rows(slice(0, 13))
    assert scores[:, 4].isneginf().all() and scores.isneginf().sum() == 13


def test_other_captions_of_an_item_do_not_compete():
    texts = torch.eye(4, dtype=torch.float64)[[0, 0, 0, 1]]
    items = ItemSet.of([torch.eye(4, dtype=torch.float64)[[0, 1]]])
    ranks = both_directions(
        "m",
        Scorer(texts, items, "cosine"),
        torch.tensor([0, 0, 0, 1]),
        lambda counts: counts.ranks("pessimistic"),
    )
    assert ranks["m-D2T"].tolist() == [1, 1]


def test_an_item_without_captions_asks_no_question():
    texts, items = tuples(missing=False)
    ranks = both_directions(
        "m", Scorer(texts, items, "cosine"), torch.zeros(13, dtype=torch.long), RankCounts.ranks
    )
    assert len(ranks["m"]) == 13 and len(ranks["m-D2T"]) == 1


def test_modes_of_reranking():
    scores = torch.tensor([[-0.1, -0.1001, -0.5, -0.9]])
    candidates, prob = torch.tensor([[0, 1, 2]]), torch.tensor([[0.2, 0.9, 0.3]])

    def order(mode):
        return reranked(scores, candidates, prob, mode).argsort(descending=True)[0].tolist()

    assert order("replace") == [1, 2, 0, 3]
    assert order("add") == [1, 0, 2, 3]
    assert candidates_alone(scores, candidates, prob).tolist()[0] == pytest.approx([0.2, 0.9, 0.3, 0.0])
    close = torch.tensor([[-0.101, -0.109, -0.5, -0.9]])
    assert reranked(close, candidates, prob, "tiebreak").argsort(descending=True)[0].tolist() == [1, 0, 2, 3]


def test_all_subsets_come_from_one_set_of_embeddings():
    texts, items = tuples(n_texts=9, missing=False)
    arrays = {
        f"pooled_{name}": x.numpy()
        for name, x in zip(("video", "audio", "subtitle"), items.modalities, strict=True)
    }
    config = replace(CONFIG, modalities=["tv", "tva", "tvas"], scores=["volume", "cosine"])
    result = GramRetrievalMetric(config).evaluate(
        pooled_text=texts.numpy(), modalities=["video", "audio", "subtitle"], **arrays
    )
    assert result.best_metric == "tvas-volume-R1" and 0 <= result.best <= 1
    assert {name.rsplit("-", 1)[0] for name in result.values} == {
        f"{subset}-{score}{direction}"
        for subset in config.modalities
        for score in config.scores
        for direction in ("", "-D2T")
    }
    assert set(result.facts) >= {"alignment tv", "alignment tva", "alignment tvas"}


def test_beside_recalls_stand_their_mean_recall_at_fifty_and_the_mean_rank():
    texts, items = tuples(n_texts=60, n_items=60, missing=False)
    result = GramRetrievalMetric(CONFIG).evaluate(
        pooled_text=texts, modalities=["video"], pooled_video=items.modalities[0]
    )
    ranks = result.per_query["ranks_tv-volume"]
    found = [result.values[f"tv-volume-{name}"] for name in ("Ravg", "R50", "meanR")]
    assert found == pytest.approx(
        [np.mean([(ranks <= k).mean() for k in (1, 5, 10)]), (ranks <= 50).mean(), ranks.mean()]
    )
    assert result.facts["alignment tv"]["queries"] == 60


@pytest.mark.parametrize("subset", ["vt", "t", "tvv", "tx"])
def test_what_is_no_subset_is_refused(subset):
    _texts, items = tuples(k=2)
    with pytest.raises(ValueError, match=f"'{subset}' is no subset"):
        compare(
            {"pooled_video": items.modalities[0], "pooled_audio": items.modalities[1]},
            ["video", "audio"],
            subset,
        )


def test_modalities_that_share_a_first_letter_are_refused():
    with pytest.raises(ValueError, match="are not all different"):
        compare({}, ["video", "voice"], "tv")


def test_any_modality_can_be_the_anchor_and_items_without_it_ask_nothing():
    _texts, items = tuples(n_texts=9, k=2)
    arrays = {"pooled_video": items.modalities[0], "pooled_audio": items.modalities[1], "present": items.mask}
    result = GramRetrievalMetric(replace(CONFIG, modalities=["av"], scores=["cosine"])).evaluate(
        modalities=["video", "audio"], **arrays
    )
    both = items.mask.all(1)
    scores = (items.modalities[1] @ items.modalities[0].T).masked_fill(~items.mask[:, 0], -torch.inf)
    rank = (scores > scores.diagonal()[:, None]).sum(1)[items.mask[:, 1]]
    assert result.facts["queries"] == items.mask[:, 1].sum() and not both.all()
    assert result.values["av-cosine-R1"] == pytest.approx(
        (rank[both[items.mask[:, 1]]] == 0).sum().item() / len(rank)
    )


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="eval.scores: 'area' is unknown"):
        Scorer(*tuples(), "area")


def test_the_alignment_report_of_perfect_items():
    texts = torch.eye(12, dtype=torch.float64)
    report = alignment(
        texts, ItemSet.of([texts.clone(), texts.clone()]), torch.arange(12), ["text", "video", "audio"]
    )
    assert report["positive_volume"] == report["own_volume"] == 0 and report["eigenvalue"] == 1
    assert report["cosine_text_video"] == report["cosine_video_audio"] == 1
    assert report["uniformity_text"] == -4  # all at squared distance 2


def test_items_without_any_of_the_modalities_stay_out_of_the_report():
    texts, items = tuples(n_texts=9, missing=False)
    mask = items.mask.clone()
    mask[4] = False
    names, kept = ["text", "video", "audio", "subtitle"], torch.arange(9) != 4
    report = alignment(texts, ItemSet.of(items.modalities, mask), torch.arange(9), names)
    expected = alignment(texts[kept], ItemSet.of([x[kept] for x in items.modalities]), torch.arange(8), names)
    assert report == expected


def test_embeddings_that_are_not_finite_are_refused():
    texts, items = tuples(missing=False)
    items.modalities[1][3] = torch.nan
    with pytest.raises(ValueError, match="1 of 9 embeddings are not finite"):
        ItemSet.of(items.modalities)
    mask = torch.ones(9, 3, dtype=torch.bool)
    mask[3, 1] = False
    assert Scorer(texts, ItemSet.of(items.modalities, mask), "volume").rows(slice(0, 13)).isfinite().all()


def test_hubs_are_counted():
    rng = torch.Generator().manual_seed(0)
    texts, video, noise = (
        torch.nn.functional.normalize(torch.randn(200, 32, generator=rng), dim=1) for _ in range(3)
    )
    audio = noise.clone()
    audio[:5] = torch.nn.functional.normalize(
        video[:5] + 0.02 * noise[:5], dim=1
    )  # items whose own modalities agree
    report = alignment(texts, ItemSet.of([video, audio]), torch.arange(200), ["text", "video", "audio"])
    assert report["hubness"] > 3 > 1 > report["hubness_cosine"] and report["contrast"] == pytest.approx(
        1, abs=0.1
    )


def test_spearman_of_a_monotone_relation_with_ties():
    assert spearman(np.array([1.0, 2, 2, 5]), np.array([0.0, 3, 3, 90])) == pytest.approx(1)
    assert spearman(np.arange(5.0), -(np.arange(5.0) ** 3)) == pytest.approx(-1)
    assert spearman(np.ones(4), np.arange(4.0)) == 0


@pytest.fixture(scope="module")
def gallery(toy_world, tmp_path_factory):
    """Twelve clips with five captions each."""
    path = tmp_path_factory.mktemp("gallery") / "clips.json"
    path.write_text(json.dumps(json.loads((toy_world / "clips/test_captions.json").read_text())[:12]))
    return path


def settings(world, annotation):
    values = {
        "dataset.bert_name": world / "model",
        "dataset.test_path": annotation,
        "dataset.modalities.video.path": world / "videos",
        "dataset.modalities.audio.path": world / "audio",
        "fairseq.dataset.batch_size": 8,
        "eval.bootstrap": 0,
        "eval.rerank": 3,
    }
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def run(toy_world, gallery):
    """Config, model, loader and arrays of the gallery with five captions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config("projects/toy/gram/test.yaml", settings(toy_world, gallery))
    torch.manual_seed(0)
    model = build_model(config)
    data = build_dataset(config, "test")
    loader = DataLoader(data, batch_size=8, collate_fn=data.collate)
    return config, model, loader, GramPredictor(config)(loader, model)


def test_every_caption_and_every_modality_is_embedded_once(run):
    _config, _model, loader, arrays = run
    n = len(loader.dataset)
    assert arrays["pooled_text"].shape == (5 * n, 128) and arrays["targets"].tolist() == [
        i for i in range(n) for _ in range(5)
    ]
    assert all(arrays[f"pooled_{name}"].shape == (n, 128) for name in ("video", "audio", "subtitle"))
    assert (
        arrays["modalities"] == ["video", "audio", "subtitle"]
        and arrays["present"][:, 0].all()
        and not arrays["present"].all()
    )
    assert len(arrays["item_ids"]) == n and len(arrays["texts"]) == 5 * n


def test_reranked_probabilities_are_those_of_the_matching_head_on_the_pairs(run):
    _config, model, loader, arrays = run
    batch = next(iter(loader))
    with torch.inference_mode():
        streams = {name: value for name, value in batch.items() if name not in ("caps", "cmasks")}
        items = model.encode_items(batch["caps"][:, 0], batch["cmasks"][:, 0], **streams)
        query = next(q for q in range(40) if arrays["match_items"][q].min() < 8)
        item = int(arrays["match_items"][query].min())
        caps, cmasks = (
            batch["caps"].flatten(0, 1)[query : query + 1],
            batch["cmasks"].flatten(0, 1)[query : query + 1],
        )
        expected = model.match(
            caps, cmasks, items["condition"][item : item + 1], items["condition_mask"][item : item + 1]
        )
    found = arrays["match_items_prob"][query][arrays["match_items"][query] == item]
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert arrays["match_texts"].shape == (len(loader.dataset), 3)


def test_all_subsets_and_the_reranked_one_are_scored(run):
    config, model, loader, _ = run
    result, _ = Evaluator(config).evaluate(model, loader)
    measures = {name.rsplit("-", 1)[0] for name in result.values}
    assert {
        "tv-volume",
        "ta-distance-D2T",
        "tvas-cosine",
        "tvas-volume-rerank",
        "tvas-volume-rerank-D2T",
    } <= measures
    assert result.best_metric == "tvas-volume-rerank-R1"


def test_reranking_needs_a_matching_head(run):
    config, _model, loader, _ = run
    model_without = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="eval.rerank needs model.matching_head: true"):
        GramPredictor(config)(loader, model_without)


def test_the_command_line_evaluates_chosen_subsets(toy_world, gallery, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = [word for setting in settings(toy_world, gallery) for word in ("--set", setting)]
    options = ["--untrained", "--modalities", "tv,tas", "--output", str(tmp_path), "--device", "cpu"]
    predict.main(["projects/toy/gram/test.yaml", *options, *words])
    report = json.loads((tmp_path / "untrained" / "results.json").read_text())
    assert report["best_metric"] == "tas-volume-rerank-R1" and "tv-volume-R1" in report["values"]
    assert report["facts"]["alignment tv"]["positive_volume"] > 0
    assert "tv-volume" in capsys.readouterr().out


def test_a_model_without_captions_is_tested_by_sound_against_sight(toy_world, gallery, monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = [text for text in settings(toy_world, gallery) if "rerank" not in text]
    config = load_config("projects/toy/gram/test_gdt_av.yaml", paths)
    data = build_dataset(config, "test")
    result, arrays = Evaluator(config).evaluate(
        build_model(config), DataLoader(data, batch_size=8, collate_fn=data.collate)
    )
    assert "pooled_text" not in arrays and result.best_metric == "av-cosine-R1"
    assert {"va-cosine-R1", "av-cosine-D2T-R1"} <= set(result.values)
