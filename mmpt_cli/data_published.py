"""What the files of each data set should be, and how many items the published ones hold."""

from __future__ import annotations

from dataclasses import dataclass

from mmpt.config import DatasetConfig


@dataclass(frozen=True)
class Count:
    """A published number of items.

    Attributes:
        items: entries of the list (captions, clips, videos), before ids without features are left out.
        videos: different videos among them; None where not published.
        source: who says so.
    """

    items: int
    videos: int | None
    source: str

    def __str__(self) -> str:
        return f"{self.items}" + (f" of {self.videos} videos" if self.videos else "") + f" ({self.source})"


_YOUCOOK_TEST = [
    Count(3350, 436, "MIL-NCE's csv, the gallery of VideoCLIP, TempCLR and Norton"),
    Count(3492, 457, "official annotations, validation"),
    Count(3216, 419, "GRAM's list"),
]
_YOUCOOK_TRAIN = [Count(10337, 1333, "official annotations, training"), Count(9283, None, "GRAM's list")]
_UCF_HMDB = [Count(13320, 13320, "UCF101, Soomro et al. 2012"), Count(6766, 6766, "HMDB51, Kuehne et al., ICCV 2011")]
_COIN_TRAIN = [Count(9030, 9030, "COIN, Tang et al., CVPR 2019: training")]
_COIN_TEST = [Count(2797, 2797, "COIN, Tang et al., CVPR 2019: testing")]
_CROSSTASK_TEST = [Count(1850, None, "CrossTask release, all features, n_train 30: 2750 annotated - 360 for validation - 18 x 30")]

PUBLISHED: dict[tuple[str, str], list[Count]] = {  # (meta processor, split) -> known galleries and training sets
    ("MSRVTTMetaProcessor", "test"): [Count(1000, 1000, "1k-A test list, JSFusion, Yu et al., ECCV 2018")],
    ("MSRVTTMetaProcessor", "valid"): [Count(1000, 1000, "1k-A test list, JSFusion, Yu et al., ECCV 2018")],
    ("MSRVTTMetaProcessor", "train"): [Count(9000, 9000, "9k: all but 1k-A"), Count(7010, 7010, "7k: official train and validate")],
    ("MSRVTTQAMetaProcessor", "test"): [Count(2990, 2990, "multiple-choice test, official test videos")],
    ("YoucookMetaProcessor", "test"): _YOUCOOK_TEST,
    ("YoucookMetaProcessor", "valid"): _YOUCOOK_TEST,
    ("YoucookMetaProcessor", "train"): _YOUCOOK_TRAIN,
    ("YoucookFullVideoBGMetaProcessor", "test"): [Count(count.videos, count.videos, count.source) for count in _YOUCOOK_TEST],
    ("COINActionSegmentationMetaProcessor", "train"): _COIN_TRAIN,
    ("COINActionSegmentationMetaProcessor", "valid"): _COIN_TEST,
    ("COINActionSegmentationMetaProcessor", "test"): _COIN_TEST,
    ("CrossTaskMetaProcessor", "train"): [Count(540, None, "CrossTask release with all features and n_train 30: 18 x 30")],
    ("CrossTaskMetaProcessor", "valid"): _CROSSTASK_TEST,
    ("CrossTaskMetaProcessor", "test"): _CROSSTASK_TEST,
    ("DiDeMoMetaProcessor", "test"): [Count(4021, 1004, "DiDeMo, Hendricks et al., ICCV 2017: test")],
    ("HTMAlignMetaProcessor", "test"): [Count(80, 80, "HTM-Align, Han et al., CVPR 2022")],
    ("RecognitionMetaProcessor", "test"): _UCF_HMDB,
    ("How2MetaProcessor", "valid"): [Count(23834, 23834, "how2_s3d_val.lst")],
    ("ShardedHow2MetaProcessor", "valid"): [Count(23834, 23834, "how2_s3d_val.lst")],
}

FILES = {  # key of `dataset:` -> what stands behind it, where the meta processor does not say more
    "vfeat_dir": "folder of <video id>.npy, (seconds, features), one row per second; or shards",
    "tfeat_dir": "path prefix of token shards",
    "full_test_path": "MSR-VTT: csv `video_id` of the 2990 official test videos",
    "jsfusion_path": "MSR-VTT: csv `key,vid_key,video_id,sentence` of the 1k-A test pairs",
    "json_path": "MSRVTT_data.json: {videos, sentences: [{video_id, caption}]}",
    "trainval_annotation": "youcookii_annotations_trainval.json: {database: {video: {subset, duration, annotations}}}",
    "train_csv_path": "CrossTask videos.csv: lines `task,video,url`",
    "val_csv_path": "CrossTask videos_val.csv: lines `task,video,url`",
    "primary_path": "CrossTask tasks_primary.txt: records of id, title, url, number of steps, steps, blank line",
    "related_path": "CrossTask tasks_related.txt, like tasks_primary.txt",
    "annotation_path": "CrossTask: folder of <task>_<video>.csv; recognition: folder of split lists",
    "anno_path": "htm_align.json: {video: [[alignable, start, end, sentence]]}",
}
LISTS = {  # prefix of the meta processor -> what train_path, val_path and test_path are
    "MSRVTTQA": "MSR_MC_test.csv: tab-separated vid_key a1..a5 answer",
    "MSRVTT": "csv with `video_id`, for tests also `sentence`",
    "YoucookNLG": "list of <recipe>/<video>",
    "Youcook": "pickled list of {id: <video>_<clip>, caption}; `data convert youcook` makes it",
    "COIN": "COIN.json: {database: {video: {subset, duration, annotation: [{id, label, segment}]}}}",
    "CrossTask": "CrossTask videos csv: lines `task,video,url`",
    "DiDeMo": "test_data.json: [{video, description, times}]",
    "FewShot": "list of <class folder>/<video>",
    "How2": "list of video ids",
    "ShardedHow2": "list of video ids",
}
SPLIT_KEYS = ("train_path", "val_path", "test_path")


def description(key: str, config: DatasetConfig) -> str:
    """What the file or folder under a key of `dataset:` should be."""
    if key in SPLIT_KEYS:
        meta = config.meta_processor or ""
        return next((text for prefix, text in LISTS.items() if meta.startswith(prefix)), "list of items")
    return FILES.get(key, "")
