"""From a folder of videos and subtitles to a page in one command; what is wrong with it is said, and nothing
that was done is lost."""

from __future__ import annotations

import errno
import json
import re
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mmpt.inference import own_videos
from mmpt.inference.own_videos import Made
from mmpt.inference.search import search
from mmpt.pages import own_videos as pages
from mmpt_cli.align import main
from tests.own_videos import SENTENCES, film, vtt

pytest.importorskip("av")
pytest.importorskip("pysubs2")


@pytest.fixture
def command(model_folder, toy_backbone, tmp_path):
    """`command(folder, ...)` runs `mmpt align`; gives what is there then."""

    def run(folder, *words, model=model_folder):
        out = tmp_path / "out"
        main(
            [
                str(folder),
                "--model",
                str(model),
                "--backbone",
                toy_backbone,
                "--out",
                str(out),
                "--device",
                "cpu",
                *words,
            ]
        )
        return Made.load(out)

    return run


def test_a_folder_of_five_videos_becomes_a_page_and_an_index(command, five_videos, capsys):
    made = command(five_videos, "--export", "vtt", "csv")
    said = capsys.readouterr().out
    assert made.aligned == [f"v{i}" for i in range(5)] and not made.left_out
    assert "5 videos, 5 of them with captions" in said and "5 to extract, about 1.0 min of footage" in said
    page = (made.out / "index.html").read_text()
    for name in made.aligned:
        assert f'href="pages/{name}.html"' in page
        viewer = (made.out / "pages" / f"{name}.html").read_text()
        assert all(sentence in viewer for sentence in SENTENCES) and f"{name}.mp4" in viewer
    for video in made.alignments():
        assert list(video.captions) == list(SENTENCES) and video.length_s == 12
    found, files = search(made.index, ["pour the milk"], 3)
    assert len(found["pour the milk"]) == 3 and set(files) == set(made.aligned)
    assert (made.out / "exports/vtt/v0.vtt").is_file()
    assert len((made.out / "exports/csv/captions.csv").read_text().splitlines()) > 5


def test_the_same_command_again_does_nothing_anew(command, five_videos, capsys):
    made = command(five_videos)
    before = {
        path: path.stat().st_mtime_ns for path in made.out.rglob("*") if path.suffix in (".npy", ".npz")
    }
    pages = {path: path.stat().st_mtime_ns for path in (made.out / "pages").glob("*.html")}
    capsys.readouterr()
    command(five_videos)
    said = capsys.readouterr().out
    assert (
        "5 are there, 0 to extract" in said
        and "0 aligned, 5 were there" in said
        and "10 moments of 5 videos; 0 came, 0 went" in said
    )
    assert all(path.stat().st_mtime_ns == time for path, time in (before | pages).items())


def test_a_video_that_comes_later_is_added_and_changed_captions_are_aligned_again(
    command, five_videos, tmp_path, capsys
):
    folder = tmp_path / "videos"
    shutil.copytree(five_videos, folder)
    command(folder)
    film(folder / "new.mp4", colour=9)
    vtt(folder / "new.vtt")
    vtt(folder / "v1.en.vtt", SENTENCES[:2])
    capsys.readouterr()
    made = command(folder)
    said = capsys.readouterr().out
    assert "5 are there, 1 to extract" in said and "2 aligned, 4 were there" in said and "1 came, 0" in said
    assert (
        "new" in made.aligned and len(next(v for v in made.alignments() if v.video_id == "v1").captions) == 2
    )


def test_what_cannot_be_used_is_left_out_with_its_reason(command, five_videos, tmp_path, capsys):
    folder = tmp_path / "videos"
    shutil.copytree(five_videos, folder)
    (folder / "v0.en.vtt").unlink()  # no captions
    (folder / "v1.en.vtt").write_text("WEBVTT\n\n")  # nobody speaks
    (folder / "v2.mp4").write_bytes(b"no video")
    vtt(folder / "v3.en.vtt", ["нарежьте лук", "обжарьте лук", "налейте молоко"])
    made = command(folder)
    assert made.aligned == ["v3", "v4"]
    reasons = made.left_out
    assert (
        "no captions in" in reasons["v0"] and "without speech" in reasons["v1"] and "v2.mp4" in reasons["v2"]
    )
    assert re.search("only 0% of the words of v3.en.vtt .*another language", made.warnings["v3"][0])
    assert "v2" not in MomentIds(made) and "v0" in MomentIds(made)  # without captions, yet to be found
    page = (made.out / "index.html").read_text()
    assert "without speech" in page and "another language" in page


def MomentIds(made):
    from mmpt.neighbours.store import VectorStore

    return VectorStore(made.index).videos


def test_other_weights_make_alignments_and_index_anew(command, five_videos, model_folder, tmp_path, capsys):
    command(five_videos)
    other = shutil.copytree(model_folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    for path in other.glob("*sha256*"):
        path.unlink()
    save_file(
        {n: t * 1.5 if t.is_floating_point() else t for n, t in weights.items()}, other / "model.safetensors"
    )
    capsys.readouterr()
    made = command(five_videos, model=other)
    said = capsys.readouterr().out
    assert "5 are there, 0 to extract" in said and "5 aligned, 0 were there" in said and "5 came" in said
    search(made.index, ["cut"], 1)  # the index is of these weights


def test_a_full_disk_keeps_what_is_done_and_the_command_goes_on(
    command, five_videos, tmp_path, monkeypatch, capsys
):
    real, calls = own_videos.align_video, []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(own_videos, "align_video", full)
    with pytest.raises(OSError, match="is full.*What is done is kept: free some space and run the same"):
        command(five_videos)
    capsys.readouterr()
    made = command(five_videos)
    assert "3 aligned, 2 were there" in capsys.readouterr().out and len(made.aligned) == 5


def test_pages_that_were_written_before_a_kill_stay(command, five_videos, monkeypatch):
    real, written = pages.write_alignment, []

    def killed(page, *rest):
        written.append(page.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        return real(page, *rest)

    monkeypatch.setattr(pages, "EACH", 1)
    monkeypatch.setattr(pages, "write_alignment", killed)
    with pytest.raises(KeyboardInterrupt):
        command(five_videos)
    command(five_videos)
    assert written == ["v0.html", "v1.html", "v2.html", "v2.html", "v3.html", "v4.html"]


def test_too_little_room_is_said_before_hours_are_spent(command, five_videos, monkeypatch):
    monkeypatch.setattr(own_videos.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1 << 20))
    with pytest.raises(OSError, match="1 MB free, 50 MB needed at least"):
        command(five_videos)


def test_features_of_another_backbone_are_not_mixed_in(command, five_videos, tmp_path):
    made = command(five_videos)
    passport = made.out / "features/passport.json"
    passport.write_text(json.dumps(json.loads(passport.read_text()) | {"backbone": "s3d"}))
    (made.out / "features/v0.npy").unlink()
    with pytest.raises(ValueError, match="this folder holds other features"):
        command(five_videos)


def test_features_take_the_place_of_videos(model_folder, five_videos, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for number in range(5):
        np.save(
            folder / f"v{number}.npy",
            np.random.default_rng(number).standard_normal((12, 512)).astype(np.float16),
        )
    main(
        [
            str(folder),
            "--videos",
            str(five_videos),
            "--model",
            str(model_folder),
            "--out",
            str(tmp_path / "o"),
        ]
    )
    made = Made.load(tmp_path / "o")
    assert len(made.aligned) == 5 and made.files["v0"].endswith("v0.mp4")


def test_damaged_results_are_made_anew(command, five_videos, capsys):
    made = command(five_videos)
    (made.index / "index.json").write_bytes(b"cut")
    (made.out / "alignments/v1.json").write_text("{")
    (made.out / "alignments/v2.npz").unlink()
    (made.out / "pages/.made.json").write_text("{")
    capsys.readouterr()
    made = command(five_videos)
    said = capsys.readouterr().out
    assert "2 aligned, 3 were there" in said and "made anew: " in said and "5 came" in said
    assert len(list(made.alignments())) == 5


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with own_videos._alone(tmp_path), pytest.raises(ValueError, match="another run works in this folder"):  # noqa: SIM117
        with own_videos._alone(tmp_path):
            pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["videos", "a.vtt"], "is many videos: give its captions as --captions"),
        (["a.mp4"], "one video needs its file of captions"),
    ],
)
def test_wrong_words_are_told(words, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*words, "--model", "m"])
    assert message in capsys.readouterr().err


def test_a_table_of_paths_takes_the_place_of_a_folder(command, five_videos, tmp_path):
    rows = "".join(f"{five_videos}/v{number}.mp4,v{number}\n" for number in (1, 3))
    (tmp_path / "list.csv").write_text(f"path,video_id\n{rows}")
    assert command(tmp_path / "list.csv", "--captions", str(five_videos)).aligned == ["v1", "v3"]
