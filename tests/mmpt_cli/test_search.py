"""The search command: a folder becomes an index, a sentence becomes moments and a page."""

from __future__ import annotations

import base64
import json
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mmpt.models import MMPTModel
from mmpt.neighbours.exact import ExactSearch, Moment
from mmpt.neighbours.store import VectorStore
from mmpt.pages.moments import write_page
from mmpt.pages.render import clock
from mmpt_cli import align
from mmpt_cli.search import main
from tests.media.media import write_video

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Features of two videos, one of them with its file, and a damaged feature file."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "features").mkdir()
    (folder / "videos").mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("red", 20), ("no file", 9)):
        np.save(folder / "features" / f"{name}.npy", rng.standard_normal((seconds, 512)).astype(np.float16))
    np.save(folder / "features" / "damaged.npy", np.full((3, 512), np.nan, np.float16))
    write_video(folder / "videos" / "red.mp4", range(0, 20000, 500), shade=lambda i: (200, 0, 0))
    return folder


@pytest.fixture
def index(world, model_folder, tmp_path, capsys):
    path = tmp_path / "index"
    folders = [str(world / "features"), "--videos", str(world / "videos")]
    main(
        [
            "build",
            *folders,
            "--model",
            str(model_folder),
            "--index",
            str(path),
            "--window",
            "4",
            "--stride",
            "2",
        ]
    )
    return path


def test_build_counts_moments_and_names_what_it_leaves_out(index, capsys):
    said = capsys.readouterr().out
    assert (
        "index: 13 moments of 2 videos; 2 came, 0 went" in said
        and "left out: damaged: " in said
        and "not finite" in said
    )


def test_query_prints_the_moments_that_fit_best_first(index, model_folder, capsys):
    capsys.readouterr()
    main(["query", "pour the milk", "--index", str(index), "-k", "3"])
    lines = capsys.readouterr().out.splitlines()
    model, _, _ = MMPTModel.from_pretrained(model_folder, video_encoder=None)
    query = model.encode_text("pour the milk", numpy=True)[0]
    expected = ExactSearch(VectorStore(index)).search(query, 3).hits
    assert lines[0] == "pour the milk" and len(lines) == 4
    for rank, (line, moment) in enumerate(zip(lines[1:], expected, strict=True), start=1):
        span = f"{clock(moment.start_s)} - {clock(moment.end_s)}"
        pattern = rf"\s*{rank}\s+{moment.score:.3f}\s+{moment.video_id}\s+{span}"
        assert re.fullmatch(pattern, line)


def test_page_holds_thumbnails_and_plays_from_the_moment(index, tmp_path):
    page = tmp_path / "page.html"
    main(["query", "cut <b>", "--index", str(index), "-k", "20", "--html", str(page)])
    text = page.read_text()
    assert "<h2>cut &lt;b&gt;</h2>" in text and "cut <b>" not in text and "no video file" in text
    posters = re.findall(r"base64,([^\"]+)", text)
    with open(tmp_path / "poster.jpg", "wb") as file:
        file.write(base64.b64decode(posters[0]))
    with av.open(str(tmp_path / "poster.jpg")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape == (240, 320, 3) and image[..., 0].mean() > 150 > 60 > image[..., 2].mean()
    assert re.search(r'src="[^"]*videos/red\.mp4#t=\d+,\d+"', text) and re.search(
        r'<a href="[^"]*red\.mp4#t=\d+,\d+">red</a>', text
    )


def test_page_needs_nothing_else_but_the_videos(index, tmp_path):
    main(["query", "cut", "--index", str(index), "--html", str(tmp_path / "page.html")])
    assert not re.search(r"https?://|<script|<link", (tmp_path / "page.html").read_text())


def test_page_links_a_video_whose_name_means_something_in_html_and_in_addresses(tmp_path):
    name = """50% "<i>" & 'x' #1?"""
    write_video(tmp_path / f"{name}.mp4", [0, 500])
    write_page(
        tmp_path / "page.html", {"a": [Moment(name, 0, 1, 0.5)]}, {name: str(tmp_path / f"{name}.mp4")}
    )
    text = (tmp_path / "page.html").read_text()
    assert "<i>" not in text
    address = re.search(r'href="([^"]*)"', text)[1]
    assert (tmp_path / unquote(address.removesuffix("#t=0,1"))).is_file()


def test_page_survives_a_video_that_is_gone(tmp_path):
    write_page(tmp_path / "page.html", {"a": [Moment("v", 0, 1, 0.5)]}, {"v": str(tmp_path / "v.mp4")})
    assert "video file not readable" in (tmp_path / "page.html").read_text()


def test_an_index_of_other_weights_is_refused(index, model_folder, tmp_path):
    other = shutil.copytree(model_folder, tmp_path / "trained on")
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in weights.items()},
        other / "model.safetensors",
    )
    stale = VectorStore(index)
    stale.describe({**stale.origin, "model": str(other)})
    with pytest.raises(ValueError, match="made with other weights than .*trained on has now.*Build it again"):
        main(["query", "a", "--index", str(index)])


def test_query_without_an_index_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="mmpt search build FOLDER"):
        main(["query", "a", "--index", str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("option", "message"), [(["-k", "0"], "whole number of at least 1"), ([" "], "without words")]
)
def test_query_for_nothing_is_refused(index, option, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        main(["query", "a", *option, "--index", str(index)])
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_folder_of_unusable_videos_says_why_of_each(model_folder, tmp_path, capsys):
    np.save(tmp_path / "damaged.npy", np.full((3, 512), np.nan, np.float16))
    with pytest.raises(ValueError, match="no usable videos"):
        main(["build", str(tmp_path), "--model", str(model_folder), "--index", str(tmp_path / "index")])
    assert "left out: damaged: " in capsys.readouterr().out


def test_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no files found"):
        main(["build", str(tmp_path)])


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75.9, "1:15"), (3675, "1:01:15")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_captions_of_a_video_are_placed_in_it(world, model_folder, tmp_path, capsys):
    (tmp_path / "red.srt").write_text(
        "1\n00:00:00,000 --> 00:00:02,000\nchop the onion\n\n2\n00:00:02,000 --> 00:00:04,000\nfry it\n"
    )
    out = tmp_path / "aligned.json"
    words = [world / "features" / "red.npy", tmp_path / "red.srt", "--model", model_folder, "--out", out]
    align.main(list(map(str, words)))
    rows = json.loads(out.read_text())
    assert [row["text"] for row in rows] == ["chop the onion", "fry it"]
    assert rows[0]["start"] == 0 and rows[-1]["end"] == 20 and all(0 < row["mass"] <= 1 for row in rows)
    assert "chop the onion" in capsys.readouterr().out


def test_captions_of_another_video_are_refused(world, model_folder, tmp_path):
    (tmp_path / "all.json").write_text(
        json.dumps({name: {"start": [0], "end": [1], "text": ["a"]} for name in "vw"})
    )
    words = [world / "features" / "red.npy", tmp_path / "all.json", "--model", model_folder]
    with pytest.raises(ValueError, match="no captions of red; it has those of v, w"):
        align.main(list(map(str, words)))
