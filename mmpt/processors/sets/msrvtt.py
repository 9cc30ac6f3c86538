"""MSR-VTT: retrieval, question answering, captioning.

MSRVTT_JSFUSION_test.csv  key,vid_key,video_id,sentence  ret0,msr9770,video9770,a person is connecting
    something to system
MSRVTT_train.9k.csv        video_id                           video0
MSRVTT_data.json           {"sentences": [{"video_id": "video0", "caption": "a car is shown"}, ...]}
MSR_MC_test.csv            tab separated: vid_key a1 a2 a3 a4 a5 answer
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import Aligner, MetaProcessor, MissingData, PublishedList, TextProcessor, needed
from mmpt.registry import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS
from mmpt.utils.files import atomic_write
from mmpt.utils.seed import ItemRandom
from mmpt.utils.text import check_kind, check_record, read_json, read_table

RIGHT_ANSWERS = tuple("01234")
JSFUSION = [PublishedList(1000, 1000, "1k-A, JSFusion, Yu et al., ECCV 2018")]


@META_PROCESSORS.register()
class MSRVTTMetaProcessor(MetaProcessor):
    """Rows of a csv; item -> (video id, sentence), or (video id, video id) where the csv has no sentences.

    Training adds the videos of full_test_path that are not in jsfusion_path (when both are set), and repeats
    the table `dup` times.
    """

    LIST = "csv with `video_id`, for tests also `sentence`"
    FILES: ClassVar = {
        "full_test_path": "csv `video_id` of the 2990 official test videos",
        "jsfusion_path": "csv `key,vid_key,video_id,sentence` of the 1k-A test pairs",
    }
    PUBLISHED: ClassVar = {
        "test": JSFUSION,
        "valid": JSFUSION,
        "train": [
            PublishedList(9000, 9000, "9k: all but 1k-A"),
            PublishedList(7010, 7010, "7k: official train and validate"),
        ],
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Lists of the split with 7k or 9k training videos."""

        full_test_path: str | None = option(None, "MSR-VTT full test list, whose rest joins training")
        jsfusion_path: str | None = option(None, "MSR-VTT 1k-A test list")
        dup: int | None = option(None, "passes over the training table per epoch", least=1)

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        rows = read_table(self.split_path(), ("video_id",))
        for number, row in enumerate(rows, start=2):
            if "sentence" in row and not (row["sentence"] or "").strip():
                raise MissingData(
                    f"{self.split_path()}, line {number}: video {row['video_id']!r} has no sentence."
                )
        items = [(row["video_id"], row.get("sentence", row["video_id"])) for row in rows]
        if self.split == "train" and config.full_test_path and config.jsfusion_path:
            held_out = {row["video_id"] for row in read_table(config.jsfusion_path, ("video_id",))}
            rest = dict.fromkeys(row["video_id"] for row in read_table(config.full_test_path, ("video_id",)))
            items += [(video_id, video_id) for video_id in rest if video_id not in held_out]
        self.data = self.with_features(items)
        if self.split == "train" and config.dup:
            self.data = self.data * config.dup


@TEXT_PROCESSORS.register()
class MSRVTTTextProcessor(TextProcessor):
    """In training with json_path: one of the video's captions, drawn at every access. Else the sentence of
    the csv."""

    FILES: ClassVar = {"json_path": "MSRVTT_data.json: {videos, sentences: [{video_id, caption}]}"}

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Captions of the training videos."""

        json_path: str | None = option(None, "MSR-VTT captions")

    def __init__(self, config: DatasetConfig, tokenizer: Any = None):
        super().__init__(config, tokenizer)
        self.captions: dict[str, list[str]] | None = None
        if config.json_path is not None and config.split == "train":
            self.captions = defaultdict(list)
            for sentence in _records(config.json_path, "sentences", video_id=str, caption=str):
                self.captions[sentence["video_id"]].append(sentence["caption"])

    def __call__(self, text_id: str, rng: ItemRandom | None = None) -> Any:
        return self.tokenize(self.text(text_id, rng))

    def text(self, text_id: str, rng: ItemRandom | None) -> str:
        """The words of an item."""
        if self.captions is None:
            return text_id
        if text_id not in self.captions:
            raise MissingData(f"{self.config.json_path}: no caption of video {text_id!r}.")
        choices = self.captions[text_id]
        return choices[needed(rng, self).python.randint(0, len(choices) - 1)]


@TEXT_PROCESSORS.register()
class MSRVTTNLGTextProcessor(MSRVTTTextProcessor):
    """A caption to be generated: (token ids, the text itself)."""

    def __call__(self, text_id: str, rng: ItemRandom | None = None) -> tuple[list[int], str]:
        text = self.text(text_id, rng)
        return self.tokenize(text), text


@META_PROCESSORS.register()
class MSRVTTQAMetaProcessor(MetaProcessor):
    """Multiple choice; item -> (video id, (index of the right answer, five answers))."""

    LIST = "MSR_MC_test.csv: tab-separated vid_key a1..a5 answer"
    PUBLISHED: ClassVar = {"test": [PublishedList(2990, 2990, "multiple choice, official test videos")]}
    ANSWERS = ("a1", "a2", "a3", "a4", "a5")

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        rows = read_table(self.split_path(), ("vid_key", *self.ANSWERS, "answer"), delimiter="\t")
        for number, row in enumerate(rows, start=2):
            if row["answer"] not in RIGHT_ANSWERS or not all(
                (row[name] or "").strip() for name in self.ANSWERS
            ):
                raise ValueError(
                    f"{self.split_path()}, line {number}: video {row['vid_key']!r}: expected five answers "
                    "and the number of the right one, "
                    f"0 to 4, got {row['answer']!r} after {[row[name] for name in self.ANSWERS]}."
                )
        items = [
            (
                row["vid_key"].replace("msr", "video"),
                (int(row["answer"]), [row[name] for name in self.ANSWERS]),
            )
            for row in rows
        ]
        self.data = self.with_features(items)


@TEXT_PROCESSORS.register()
class MSRVTTQATextProcessor(TextProcessor):
    """(index of the right answer, token ids of the five answers)."""

    def __call__(
        self, text_id: tuple[int, list[str]], rng: ItemRandom | None = None
    ) -> tuple[int, list[list[int]]]:
        answer, choices = text_id
        return answer, [self.tokenize(choice) for choice in choices]


@ALIGNERS.register()
class MSRVTTQAAligner(Aligner):
    """caps, cmasks (5, T) of the answers, answers (1) the index of the right one; video as in DSAligner."""

    def __call__(
        self,
        video_id: Any,
        video_feature: np.ndarray,
        text_feature: tuple[int, list[list[int]]],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        answer, choices = text_feature
        vfeats, vmasks = self.build_video(video_feature, video_id)
        caps, cmasks = self.pack(choices)
        return {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": vfeats,
            "vmasks": vmasks,
            "video_id": video_id,
            "answers": torch.tensor([answer]),
        }


def _records(path: str | Path, key: str, **fields: type) -> list[dict[str, Any]]:
    """The records under a key of MSRVTT_data.json, see `check_record`."""
    records = read_json(path, dict).get(key)
    if not records:
        raise ValueError(f"{path}: no `{key}`; expected MSRVTT_data.json.")
    check_kind(records, list, f"{path}: {key}")
    return [
        check_record(record, f"{path}: {key}, record {index}", **fields)
        for index, record in enumerate(records)
    ]


def convert(source: Path, out: Path, *, test: Path) -> str:
    """MSRVTT_data.json -> a folder with MSRVTT_train.9k.csv, MSRVTT_train.7k.csv, MSRVTT_train.csv and
    MSRVTT_FULL_test.csv.

    Args:
        test: the 1k-A test csv, whose videos no training list may hold
    """
    _records(source, "sentences", video_id=str, caption=str)
    videos = _records(source, "videos", video_id=str)
    held_out = {row["video_id"] for row in read_table(test, ("video_id",))}
    split_of = {video["video_id"]: video.get("split", "") for video in videos}
    official = [
        video for video, split in split_of.items() if split in ("train", "validate") and video not in held_out
    ]
    lists = {
        "MSRVTT_train.9k.csv": [video for video in split_of if video not in held_out],
        "MSRVTT_train.7k.csv": official,
        "MSRVTT_train.csv": official,
        "MSRVTT_FULL_test.csv": [video for video, split in split_of.items() if split == "test"],
    }
    for name, videos in lists.items():
        with atomic_write(out / name, "w") as file:
            file.write("video_id\n" + "".join(f"{video}\n" for video in videos))
    return f"{out}: " + ", ".join(f"{name} {len(videos)}" for name, videos in lists.items())
