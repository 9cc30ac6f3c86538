"""What stands behind each key of a `dataset:` section."""

from __future__ import annotations

from mmpt.config import DatasetConfig

FILES = {  # key of `dataset:` -> what stands behind it, where the meta processor does not say more
    "vfeat_dir": "folder of <video id>.npy, (seconds, features), one row per second; or shards",
    "tfeat_dir": "path prefix of token shards",
    "full_test_path": "MSR-VTT: csv `video_id` of the 2990 official test videos",
    "jsfusion_path": "MSR-VTT: csv `key,vid_key,video_id,sentence` of the 1k-A test pairs",
    "json_path": "MSRVTT_data.json: {videos, sentences: [{video_id, caption}]}",
    "trainval_annotation": "youcookii_annotations_trainval.json: {database: {video: {subset, duration, "
    "annotations}}}",
    "train_csv_path": "CrossTask videos.csv: lines `task,video,url`",
    "val_csv_path": "CrossTask videos_val.csv: lines `task,video,url`",
    "primary_path": "CrossTask tasks_primary.txt: records of id, title, url, number of steps, steps, "
    "blank line",
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
    "Modality": "JSON list of items: clip_id or video_id, caption, and optionally segment and subtitle",
}
SPLIT_KEYS = ("train_path", "val_path", "test_path")


def description(key: str, config: DatasetConfig) -> str:
    """What the file or folder under a key of `dataset:` should be."""
    if key in SPLIT_KEYS:
        meta = config.meta_processor or ""
        return next((text for prefix, text in LISTS.items() if meta.startswith(prefix)), "list of items")
    return FILES.get(key, "")
