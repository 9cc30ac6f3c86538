"""Clips of video files with what is said in them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.raw_captions import (
    RawCaptionAligner,
    RawCaptionMetaProcessor,
    RawCaptionTextProcessor,
    caption_window,
    read_captions,
)
from mmpt.processors.modalities.raw_clips import RawVideoProcessor
from mmpt.utils.seed import ItemRandom
from mmpt.utils.vocabulary import Vocabulary
from tests.conftest import golden_cases, load_golden
from tests.media.media import write_clip

pytest.importorskip("av")
WORDS = ["chop", "an", "onion", "stir"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("howto")
    (folder / "captions").mkdir()
    (folder / "videos").mkdir()
    write_clip(folder / "videos" / "v0.mkv", 10)
    (folder / "howto.csv").write_text("video_id\nv0\nlost\n")
    (folder / "captions" / "v0.csv").write_text(
        "start,end,text\n0,1,chop an onion\n6,9.5,Stir stir unknown\n"
    )
    np.save(folder / "dict.npy", np.array(WORDS))
    (folder / "test.json").write_text(
        json.dumps([{"video_id": "v0", "clip_id": "v0_1", "segment": [2, 6], "caption": ["stir", "chop"]}])
    )
    return folder


def config(files, **keys):
    settings = {
        "train_path": str(files / "howto.csv"),
        "test_path": str(files / "test.json"),
        "video_dir": str(files / "videos"),
        "caption_dir": str(files / "captions"),
        "word_list": str(files / "dict.npy"),
        "max_words": 4,
        "raw": {"frames": 4, "fps": 4, "size": 16},
    }
    return DatasetConfig(**settings | keys)


def item(settings, seed=0):
    path, text = RawCaptionMetaProcessor(settings)[0]
    captions = RawCaptionTextProcessor(settings)(text)
    return RawCaptionAligner(settings)(path, RawVideoProcessor(settings)(path), captions, ItemRandom(seed))


def shown_s(video):
    """Times of the frames (3, T, S, S), from their greys."""
    return video.mean(dim=(0, 2, 3)) * 255 / 20


def test_a_clip_shows_what_is_said_in_it(files):
    settings = config(files, split="train")
    for made in (item(settings, seed) for seed in range(8)):
        start = float(shown_s(made["video"])[0])
        said = made["caps"].tolist()
        # a second of speech is widened to four, of which some lie before the beginning
        assert said == ([1, 2, 3, 0] if start < 3 else [4, 0, 0, 0]) and (start < 2.2 or 4.9 <= start <= 9.1)
        assert made["cmasks"].tolist() == [word > 0 for word in said] and made["video"].min() >= 0


def test_views_reverse_frames_and_words_and_shift_to_another_caption(files):
    views = {
        "views": ["orig", "rev", "shift", "shiftrev"],
        "subsampling": 4,
        "split": "train",
        "center_crop": True,
    }
    made = next(one for seed in range(20) if (one := item(config(files, **views), seed))["view_valid"].all())
    assert torch.equal(made["video"][1], made["video"][0].flip(1))
    assert torch.equal(made["caps"][3], made["caps"][2].flip(0))
    assert not torch.equal(made["caps"][0], made["caps"][2])
    same = next(
        one for seed in range(20) if not (one := item(config(files, **views), seed))["view_valid"].all()
    )
    assert same["view_valid"].tolist() == [True, True, False, False]


def test_an_annotation_gives_each_item_its_first_caption_in_the_middle_of_its_segment(files):
    made = item(config(files, split="test"))
    assert made["caps"].tolist() == [4, 0, 0, 0] and float(shown_s(made["video"])[0]) == pytest.approx(
        3.5, abs=0.2
    )


def test_videos_without_file_or_captions_are_counted_and_named(files, tmp_path):
    assert RawCaptionMetaProcessor(config(files, split="train")).missing == {"have no video file": ["lost"]}
    with pytest.raises(MissingData, match="have no captions"):
        RawCaptionMetaProcessor(config(files, split="train", caption_dir=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="dataset.video_dir=nowhere"):
        RawCaptionMetaProcessor(config(files, split="train", video_dir="nowhere"))
    (tmp_path / "v0.csv").write_text("start,end,text\n0,soon,x\n")
    with pytest.raises(ValueError, match=r"v0.csv, row 2: end"):
        read_captions(tmp_path / "v0.csv")


@pytest.mark.parametrize("path", golden_cases("release_ht100m*.npz"))
def test_golden_release_ht100m_words_and_captions(path):
    golden = load_golden(path)
    words = Vocabulary(golden["dict"], 20)
    sentences = json.loads(str(golden["sentences_json"]))
    assert torch.equal(words.encode(sentences), torch.from_numpy(golden["token_ids"]).long())
    rows = list(csv.DictReader(io.StringIO(str(golden["csv"]))))
    allowed = {}
    for row in rows:
        window = caption_window(float(row["start"]), float(row["end"]))
        allowed.setdefault(window, []).append(words.encode([str(row["text"])])[0].tolist())
    draws = zip(golden["draw.seed_start_end"].tolist(), golden["draw.token_ids"].tolist(), strict=True)
    for (_, start, end), ids in draws:
        assert ids in allowed[(start, end)]


@pytest.mark.parametrize("path", golden_cases("release_ht100m*.npz"))
def test_golden_release_ht100m_items_of_the_same_draws(path, files, tmp_path, monkeypatch):
    golden = load_golden(path)
    np.save(tmp_path / "dict.npy", golden["dict"])
    (tmp_path / "v.csv").write_text(str(golden["csv"]))
    captions, words = read_captions(tmp_path / "v.csv"), Vocabulary(golden["dict"], 20)
    known = [
        (*caption_window(caption.start_s, caption.end_s), *words.encode([caption.text])[0].tolist())
        for caption in captions
    ]
    settings = config(
        files,
        word_list=str(tmp_path / "dict.npy"),
        max_words=20,
        raw={"frames": 5, "fps": 5, "size": 4},
        center_crop=True,
        views=["orig", "rev", "shift", "shiftrev"],
        subsampling=4,
    )
    keys = ("item.text", "item.start_end_seek", "item.video_frame_codes")
    for text, times, codes in zip(*(golden[key] for key in keys), strict=True):
        blocks = text.reshape(4, 20)
        rows = [known.index((*times[n, :2].tolist(), *blocks[2 * n].tolist())) for n in (0, 1)]
        seeks, clips = iter(times[:, 2].tolist()), iter((100, 200))

        def integers(low, high=None, size=None, rows=rows, seeks=seeks):
            if size:
                return np.array(rows)
            seek = next(seeks)
            assert low <= seek < high
            return seek

        def frames(path, start_s, clips=clips):
            return (next(clips) + torch.arange(5))[:, None, None, None].expand(5, 4, 4, 3)

        aligner = RawCaptionAligner(settings)
        monkeypatch.setattr(aligner, "frames", frames)
        rng = SimpleNamespace(numpy=SimpleNamespace(integers=integers))
        file = SimpleNamespace(path="v", info=SimpleNamespace(duration_s=1e6))
        found = aligner(Path("v"), file, captions, rng)
        assert torch.equal(found["caps"], torch.from_numpy(blocks).long())
        shown = found["video"][..., 0, 0].flatten(0, 1) * 255  # views, one after the other, of three channels
        torch.testing.assert_close(shown, torch.from_numpy(codes), rtol=1e-6, atol=0)
