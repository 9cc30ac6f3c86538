"""The page that the main job ends with."""

from __future__ import annotations

import json
import shutil

import pytest

from mmpt.demo.pages import agreement, write_pages
from mmpt.inference.align import VideoAlignment
from mmpt.inference.search import search

pytest.importorskip("plotly")


def test_tables_videos_with_their_truth_curves_and_an_index_hang_together(toy_world, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    run = tmp_path / "norton"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"tag": "train_inner", "update": 10, "loss": 3.0}\n')
    results = {"tables": {"Retrieval": [["model", "R@1"], ["<Norton>", "54.3"]]}, "facts": ["queries 512"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    features = toy_world / "how2/feat"
    page = write_pages(tmp_path, str(toy_world), features, {"+ Norton": run}, tmp_path / "results.json")
    text = page.read_text()
    assert "&lt;Norton&gt;" in text and 'href="report.html"' in text and (tmp_path / "report.html").is_file()
    names = sorted(path.stem for path in (tmp_path / "pages").glob("*.html"))
    assert names and all(f'href="pages/{name}.html"' in text for name in names)
    video = VideoAlignment.load(tmp_path / "alignments" / names[0])
    assert len(video.truth) == len(video.captions) and None in video.truth
    assert all(0 <= share <= 1 for share in agreement(video).values())
    found, _ = search(tmp_path, ["chop the onion"], 2)  # by the weights beside it
    assert len(found["chop the onion"]) == 2
