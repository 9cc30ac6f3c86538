"""Where captions are, by three methods; kept on disk; written for other tools."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from mmpt.calibration import Spans
from mmpt.inference.align import VideoAlignment, describe
from mmpt.inference.exports import KINDS, export
from mmpt.inference.moments import CaptionAlignment, align_captions


@pytest.fixture
def video():
    """Three captions, the second of which fits nothing much, over six windows of two seconds."""
    like = torch.eye(6)
    text = torch.stack([like[0] + like[1], torch.full((6,), 0.4), like[4] + like[5]])
    windows = torch.tensor([[2.0 * i, 2.0 * i + 2] for i in range(6)])
    said = [(0.0, 2.0), (4.0, 5.0), (6.0, 7.5)]
    captions = ["cut <it> & go", "nothing\n--> here", "ünïcode"]
    found = align_captions(captions, text, like, windows)
    return describe("v 1", found, said, truth=[(0.0, 4.0), None, (8.0, 12.0)])


def test_every_method_finds_what_is_plain(video):
    for method in ("dtw", "otam", "plan"):
        first, last = video.spans[method][0], video.spans[method][2]
        assert first[0] == 0 and last[1] == 12, method
    assert video.spans["plan"][0] == (0, 4) and video.spans["plan"][2] == (8, 12)
    assert all(0 < mass <= 1 for masses in video.mass.values() for mass in masses if mass is not None)


def test_what_is_kept_is_what_was_found(video, tmp_path):
    video.save(tmp_path / "v 1")
    again = VideoAlignment.load(tmp_path / "v 1")
    assert again.spans == video.spans and again.mass == video.mass and again.truth == video.truth
    assert list(again.captions) == video.captions and again.rows("otam") == video.rows("otam")
    np.testing.assert_array_equal(again.plan, video.plan)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"captions": 3}'])
def test_a_damaged_alignment_is_named(video, damage, tmp_path):
    video.save(tmp_path / "v")
    (tmp_path / "v.json").write_bytes(damage)
    with pytest.raises(ValueError, match="v.json: no alignment, or a damaged one"):
        VideoAlignment.load(tmp_path / "v")


def read_export(kind, path):
    """(start, end, text) of what another tool would find in an export."""
    if kind in ("srt", "vtt"):
        pysubs2 = pytest.importorskip("pysubs2")
        return [(cue.start / 1000, cue.end / 1000, cue.text) for cue in pysubs2.load(str(path))]
    if kind == "csv":
        rows = csv.DictReader(path.read_text().splitlines())
        return [(float(row["start"]), float(row["end"]), row["text"]) for row in rows]
    if kind == "eaf":
        root = ElementTree.parse(path).getroot()
        slots = {
            slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) / 1000 for slot in root.iter("TIME_SLOT")
        }
        tier = next(tier for tier in root.iter("TIER") if tier.get("TIER_ID") == "aligned")
        return [
            (slots[one.get("TIME_SLOT_REF1")], slots[one.get("TIME_SLOT_REF2")], one[0].text)
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        ]
    tree = json.loads(path.read_text())
    if kind == "label-studio":
        values = [entry["value"] for entry in tree[0]["predictions"][0]["result"]]
        spans = [(value["ranges"][0], value["timelinelabels"][0]) for value in values]
        return [((span["start"] - 1) / 25, span["end"] / 25, text) for span, text in spans]
    return [(*entry["timestamps"], entry["label"]) for entry in tree["labels"]["v 1"]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_holds_times_and_texts(kind, video, tmp_path):
    (path,) = export([kind], [video], {"v 1": str(tmp_path / "v 1.mp4")}, tmp_path, "otam")
    found = read_export(kind, path)
    expected = [(row["start"], row["end"]) for row in video.rows("otam")]
    assert [row[:2] for row in found] == expected
    texts = [row[2] for row in found]
    assert texts[0].startswith("cut") and texts[-1] == "ünïcode"
    assert not any("\n" in text for text in texts)


def test_an_unknown_export_lists_those_there_are(video, tmp_path):
    with pytest.raises(ValueError, match="unknown export 'ass'; known: srt, vtt, csv"):
        export(["ass"], [video], {}, tmp_path)


def test_calibrated_spans_are_kept_to_the_second_and_what_is_not_visible_has_none(video):
    windows = torch.from_numpy(video.windows)
    similarity, plan = torch.from_numpy(video.similarity), torch.from_numpy(video.plan)
    told = Spans(np.array([0.5, 0, 7.5]), np.array([4.5, 12, 11.0]), np.array([True, False, True]), None)
    found = CaptionAlignment(video.captions, windows, similarity, plan, plan > 0, told)
    assert describe("v", found, video.said).spans["calibrated"] == [(0.5, 4.5), None, (7.5, 11.0)]
    with pytest.raises(ValueError, match="v 1: no spans by calibrated; .* mmpt calibrate"):
        video.rows("calibrated")
