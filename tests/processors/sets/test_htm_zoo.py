"""Features of HTM_zoo."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmpt.processors.sets.htm_zoo import convert, read_rows, video_of


def rows(seconds, width=768):
    return 3 * np.random.default_rng(seconds).standard_normal((seconds, width)).astype(np.float32)


def test_files_of_parts_become_unit_rows_with_a_passport(tmp_path, caplog):
    part = tmp_path / "zoo" / "video_FE_part1"
    part.mkdir(parents=True)
    torch.save(torch.from_numpy(rows(7)).half(), part / "abc.pth.tar")
    np.savez(part / "def.npz", features=rows(5))
    np.save(part / "ghi.mp4.npy", rows(4))
    (part / "bad.pth.tar").write_bytes(b"no tensor")
    (part / "readme.txt").write_text("")
    said = convert(tmp_path / "zoo", tmp_path / "out", kind="clip")
    assert (
        said.endswith("3 videos, 768 numbers a vector; left out: 1 not readable")
        and "bad.pth.tar" in caplog.text
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["abc.npy", "def.npy", "ghi.npy"]
    found = np.load(tmp_path / "out" / "abc.npy").astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(found, rows(7) / np.linalg.norm(rows(7), axis=1, keepdims=True), atol=2e-3)
    passport = json.loads((tmp_path / "out" / "passport.json").read_text())
    assert (passport["backbone"], passport["seconds_per_feature"], passport["normalised"]) == (
        "CLIP ViT-L/14",
        1,
        True,
    )
    assert "3 there already" in convert(tmp_path / "zoo", tmp_path / "out", kind="clip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), r"expected vectors \(time, D\), got \(3,\)"),
        (torch.full((2, 4), float("nan")), "NaN"),
        ({"features": torch.zeros(2, 2)}, "got dict"),
    ],
)
def test_other_contents_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "v.pth.tar")
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "v.pth.tar")


def test_archives_are_no_features(tmp_path):
    assert video_of(tmp_path / "video_FE_part1.tar") is None and video_of(tmp_path / "a.b.pth.tar") == "a.b"
