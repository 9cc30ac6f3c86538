"""The page of a training run, and of several compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmpt.pages.report import POINTS, _curves, _thinned, spikes
from mmpt.pages.runs import read_run
from mmpt_cli.report import main
from tests.browser import opened

pytest.importorskip("plotly")


def write_run(folder, shift=0.0, stop=60):
    """A run of 100 updates that was killed at one, in the middle of a line, and went on 20 before."""
    folder.mkdir(parents=True)
    lines = []
    for update in [*range(10, stop + 1, 10), *range(stop - 10, 101, 10)]:
        line = {"tag": "train_inner", "update": update, "loss": 9 - update / 20 + shift, "text_to_video": 4.0}
        lines.append(
            line
            | {"lr": update * 1e-5, "gnorm": 900.0 if update == 90 else 2.0, "data_wait": 0.01, "epoch": 1}
        )
        if update % 50 == 0:
            lines.append({"tag": "valid", "update": update, "loss": 8 - update / 30 + shift})
    text = "\n".join(map(json.dumps, lines)) + '\n{"tag": "train_inner", "upda'
    (folder / "metrics.jsonl").write_text(text)
    log = (
        f"x | INFO | fairseq.trainer | Loaded checkpoint {folder}/checkpoint_last.pt (epoch 1 @ 50 updates)\n"
    )
    log += "x | WARNING | mmpt | look at <this> & that\n"
    (folder / "train.log").write_text(log)
    head = "# projects/toy/videoclip.yaml with its includes and defaults, as last trained\n"
    (folder / "config.yaml").write_text(
        f"{head}model: {{model_cls: MMFusionSeparate}}\nloss: {{nce_t: {1 + shift}}}\n"
    )
    evaluation = folder / "eval" / "test_vtt"
    evaluation.mkdir(parents=True)
    ranks = np.random.default_rng(int(10 * shift)).integers(1, 8, 50)
    np.savez(evaluation / "per_query.npz", ranks=ranks, ids=np.array([f"q{i}" for i in range(50)]))
    values = {"values": {"R1": float((ranks <= 1).mean())}, "intervals": {"R1": [0.0, 0.4]}}
    (evaluation / "results.json").write_text(json.dumps(values))
    return folder


def test_an_update_that_was_trained_twice_counts_once_and_a_cut_line_is_counted(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert [line["update"] for line in run.inner] == list(range(10, 101, 10))
    assert (
        run.retrained == 2 and run.unread == 1 and run.resumes == [(f"{tmp_path}/run/checkpoint_last.pt", 50)]
    )
    assert run.facts()["best validation loss"] == "4.6667 at update 100" and run.losses == [
        "loss",
        "text_to_video",
    ]
    assert (
        run.config["model.model_cls"][1] != "default or --set"
        and run.config["loss.nce_t"][1] == "default or --set"
    )


def test_measures_of_the_test_at_each_validation_stand_apart_from_the_terms_of_the_loss(tmp_path):
    lines = [
        {"tag": "train_inner", "update": 10, "loss": 5.0, "processes": 1, "temperature": 0.07},
        {"tag": "valid", "update": 10, "loss": 6.0, "zero_shot_R1": 0.2, "zero_shot_R5": 0.5}
        | {"zero_shot_MR": 4.0, "zero_shot_V2T-R1": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = read_run(tmp_path)
    assert run.losses == ["loss"] and run.zero_shot == {"": ["R1", "R5"], "V2T": ["R1"]}
    names = {chart["title"]: [line["name"] for line in chart["data"]] for chart in _curves([run])}
    assert names["zero-shot test"] == ["R1", "R5"] and names["zero-shot test, V2T"] == ["R1"]
    assert names["loss"] == ["loss", "loss, validation"] and "processes" not in names


def test_no_picture_of_a_run_has_more_than_eight_curves(tmp_path):
    terms = {f"term_{number}": 1.0 for number in range(9)}
    lines = [{"tag": tag, "update": 10, "loss": 5.0} | terms for tag in ("train_inner", "valid")]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert max(len([line for line in chart["data"] if line]) for chart in _curves([read_run(tmp_path)])) <= 8


def test_a_long_curve_is_thinned_and_keeps_its_jump():
    points = [(update, 1.0) for update in range(100_000)]
    points[70_001] = (70_001, 50.0)
    kept = _thinned(points)
    assert len(kept) <= POINTS and (70_001, 50.0) in kept and kept == sorted(kept)


def test_a_jump_is_pointed_at():
    lines = [{"name": "gnorm", "x": list(range(10)), "y": [2.0] * 5 + [300.0] + [2.0] * 4}]
    assert spikes(lines) == ["gnorm jumps to 300 at update 5"]
    assert not spikes([{"name": "loss", "x": list(range(99)), "y": list(np.geomspace(1, 500, 99))}])


def test_a_run_becomes_a_page_with_curves_that_answer(tmp_path, browser, capsys):
    main([str(write_run(tmp_path / "run")), "--plans", "0"])
    page = tmp_path / "run" / "report.html"
    assert f"page: {page}" in capsys.readouterr().out
    with opened(browser, page.as_uri()) as at:
        at.page.locator(".chart svg.main-svg").first.wait_for()
        assert at.page.locator(".chart").count() == 5  # loss, rate, norm, waiting, test_vtt
        text = at.page.inner_text("body")
        assert (
            "gradient norm" in text
            and "jumps to 900 at update 90" in text
            and "look at <this> & that" in text
        )
        curve = at.page.locator(".chart").first
        box = curve.bounding_box()
        at.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3, steps=5)
        at.page.locator(".hoverlayer .legend, .hoverlayer .hovertext").first.wait_for()
        at.page.keyboard.press("l")
        at.page.keyboard.press("d")


def test_runs_are_compared_query_by_query(tmp_path):
    folders = [write_run(tmp_path / name, shift) for name, shift in (("a", 0.0), ("b", 0.5))]
    out = tmp_path / "both.html"
    main([f"A={folders[0]}", f"B={folders[1]}", "--plans", "0", "--out", str(out)])
    text = out.read_text()
    assert "eval/test_vtt: A (A), B (B)" in text and "95 % interval" in text and "<td>loss.nce_t</td>" in text


def test_runs_of_different_queries_are_not_compared_and_it_is_said(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("a", "b")]
    np.savez(folders[1] / "eval/test_vtt/per_query.npz", ranks=np.ones(3), ids=np.array(["x", "y", "z"]))
    main([*map(str, folders), "--plans", "0", "--out", str(tmp_path / "both.html")])
    assert "the runs have different queries" in (tmp_path / "both.html").read_text()


def test_a_folder_that_is_no_run_names_those_below_it(tmp_path):
    write_run(tmp_path / "toy" / "norton")
    with pytest.raises(FileNotFoundError, match="is no run that was trained. Runs below it: norton"):
        main([str(tmp_path / "toy")])
