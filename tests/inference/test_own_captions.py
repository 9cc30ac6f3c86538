"""Captions that lie about as people let them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpt.inference.own_captions import NoCaptions, OwnCaptions
from tests.own_videos import vtt

pytest.importorskip("pysubs2")
VIDEOS = {"a": Path("a.mp4"), "My film [abcdefghijk]": Path("My film [abcdefghijk].mp4")}


def test_captions_are_found_by_the_names_that_tools_give(tmp_path):
    vtt(tmp_path / "a.srt")
    vtt(tmp_path / "a.vtt")
    (tmp_path / "a.srt").unlink()
    vtt(tmp_path / "My film [abcdefghijk].en.vtt")
    (tmp_path / "My film [abcdefghijk].info.json").write_text('{"title": "no captions"}')
    found = OwnCaptions(tmp_path, VIDEOS)
    for name in VIDEOS:
        assert found.of(name, 60)[1]["text"][0] == "chop the onion"
    assert [path.name for path in found.ignored] == ["My film [abcdefghijk].info.json"]


def test_a_table_and_a_pattern_serve_too(tmp_path):
    clips = {"a": {"start": [0], "end": [2], "text": ["cut"]}}
    (tmp_path / "all.json").write_text(json.dumps(clips))
    assert OwnCaptions(tmp_path / "all.json", VIDEOS).of("a", 9)[1]["text"] == ["cut"]
    (tmp_path / "a").mkdir()
    vtt(tmp_path / "a" / "de.vtt")
    assert OwnCaptions(f"{tmp_path}/{{id}}/de.vtt", VIDEOS).of("a", 60)[0].name == "de.vtt"


@pytest.mark.parametrize(
    ("files", "language", "message"),
    [
        (["b.vtt", "My film [abcdefghijk].vtt"], None, "no captions in"),
        (
            ["a.de.vtt", "a.en.vtt"],
            None,
            r"has 2 files of captions \(a.de.vtt, a.en.vtt\); choose by --language",
        ),
        (["a.de.vtt"], "en", "has captions in de only, and --language en is asked for"),
    ],
)
def test_a_video_without_captions_says_why(files, language, message, tmp_path):
    for name in files:
        vtt(tmp_path / name)
    found = OwnCaptions(tmp_path, VIDEOS, language)
    with pytest.raises(NoCaptions, match=message):
        found.of("a", 60)


def test_the_language_chooses_among_several(tmp_path):
    for name in ("a.de.vtt", "a.en-GB.vtt"):
        vtt(tmp_path / name)
    assert OwnCaptions(tmp_path, VIDEOS, "en").of("a", 60)[0].name == "a.en-GB.vtt"


def test_a_silent_video_and_captions_behind_its_end_are_told(tmp_path):
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n")
    with pytest.raises(NoCaptions, match="a.vtt holds no caption that can be used: it is empty"):
        OwnCaptions(tmp_path, VIDEOS).of("a", 60)
    vtt(tmp_path / "a.vtt")
    _, clips, wrong = OwnCaptions(tmp_path, VIDEOS).of("a", 4)
    assert len(clips["text"]) == 2 and "behind the end at 4 s" in wrong[0]


def test_a_folder_of_other_captions_names_both_sides(tmp_path):
    vtt(tmp_path / "other.vtt")
    with pytest.raises(ValueError, match=r"no captions of these videos \(a, .*It holds other.vtt"):
        OwnCaptions(tmp_path, VIDEOS)
    with pytest.raises(FileNotFoundError, match="neither a file, a folder nor a pattern"):
        OwnCaptions(tmp_path / "none", VIDEOS)
