"""Every reader of the package, with a small file of its kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.audit import files as audit
from mmpt.calibration.calibration import Calibration, Linear
from mmpt.checkpoints.convert import save
from mmpt.checkpoints.weights import read_state_dict
from mmpt.config import DatasetConfig, load_config
from mmpt.evaluators.compare import load_queries
from mmpt.evaluators.exchange import read_mteb
from mmpt.evaluators.records import cell, write_record
from mmpt.evaluators.records import page as record_page
from mmpt.evaluators.records import problems as result_problems
from mmpt.extraction.run import list_jobs
from mmpt.inference.align import VideoAlignment
from mmpt.inference.own_videos import Made
from mmpt.launch.gram_json import _read as gram_json
from mmpt.launch.slurm import Resources
from mmpt.media.audio import read_audio, read_audio_around, read_audio_windows
from mmpt.media.video import frame_at, probe, read_clip, read_frames, read_seconds
from mmpt.neighbours.store import VectorStore
from mmpt.pages.runs import read_run
from mmpt.processors import (
    COINActionSegmentationMetaProcessor,
    DiDeMoMetaProcessor,
    FewShotMetaProcessor,
    MSRVTTMetaProcessor,
    MSRVTTQAMetaProcessor,
    MSRVTTTextProcessor,
    RecognitionMetaProcessor,
    YoucookMetaProcessor,
    YoucookNLGMetaProcessor,
)
from mmpt.processors.captions.captions import Captions
from mmpt.processors.captions.readers import check_captions, read_captions
from mmpt.processors.modalities.modalities import Modality, read_annotation
from mmpt.processors.sets.crosstask import read_segments, read_tasks, read_videos
from mmpt.processors.sets.how2 import PKLJSONStrTextProcessor
from mmpt.processors.sets.htm_align import read_sentences
from mmpt.processors.sets.htm_zoo import read_rows
from mmpt.processors.sets.youcook import load_annotations, records_from_milnce_csv
from mmpt.processors.store.passport import read_passport
from mmpt.processors.store.verify import verify
from mmpt.processors.store.video_index import VideoIndex
from mmpt.replay.log import read_log
from mmpt.utils import ShardedTensor, ShardWriter, load_plain_pickle, save_plain_pickle
from mmpt.utils.safe_pickle import load_array_pickle
from mmpt.utils.shardedtensor import load_feature, read_manifest
from mmpt.utils.text import read_ids
from mmpt.utils.vocabulary import Vocabulary
from tests.fuzz.harness import Found, Reader
from tests.media.media import write_audio, write_clip
from tests.processors.helpers import WordTokenizer, touch_features
from tests.replay.logs import logged, run, start

VIDEOS = ["video0", "video1"]


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """Writes one file, beside a folder of features of two videos."""

    def make(folder: Path) -> Path:
        touch_features(folder / "features", VIDEOS)
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def tree(name: str, value: Any) -> Callable[[Path], Path]:
    return text(name, json.dumps(value, indent=1))


def config(path: Path, key: str = "test_path", **more: Any) -> DatasetConfig:
    """A test set of which one file is damaged."""
    features = str(path.parent / "features")
    return DatasetConfig(**({"split": "test", key: str(path), "vfeat_dir": features} | more))


def items(cls: type, **more: Any) -> Callable[[Path], Any]:
    """The items of a meta processor, and their segments."""

    def read(path: Path) -> Any:
        meta = cls(config(path, **more))
        return [meta[i] for i in range(len(meta))], list(meta.segments())

    return read


COIN = {
    "database": {
        video: {
            "subset": "testing",
            "duration": 20.5,
            "annotation": [{"id": "58", "label": "wipe screen", "segment": [3.2, 11.1]}],
        }
        for video in VIDEOS
    }
}
YOUCOOK = {
    "database": {
        video: {
            "subset": "validation",
            "duration": 20.0,
            "annotations": [{"segment": [4, 9], "id": 0, "sentence": "pick the ends off"}],
        }
        for video in VIDEOS
    }
}
MILNCE = 'end,start,task,text,video_id\n9,4,101,pick the ends off,video0\n9,4,101,"cut, then fry",video1\n'
JSFUSION = "key,vid_key,video_id,sentence\nret0,msr0,video0,a person is talking\nret1,msr1,video1,a dog\n"
QA = "vid_key\ta1\ta2\ta3\ta4\ta5\tanswer\nmsr0\ta\tb\tc\td\te\t1\nmsr1\ta\tb\tc\td\te\t4\n"
TASKS = "23521\nMake Jello\nhttp://x\n2\npour water,stir\n\n16815\nFry\nhttp://y\n1\nfry it\n"
SAID = {"start": [0.5, 2.0], "end": [2.0, 3.5], "text": ["cut the onion", "fry it"]}
WHISPER = {
    "text": "...",
    "segments": [
        {"start": 0.5, "end": 2.0, "text": " cut the onion"},
        {"start": 2.0, "end": 3.5, "text": " fry it", "words": [{"word": "fry", "start": 2.0, "end": 2.4}]},
    ],
}
JSON3 = {
    "events": [
        {"tStartMs": 500, "dDurationMs": 1500, "segs": [{"utf8": "cut the"}, {"utf8": " onion"}]},
        {"tStartMs": 2000, "dDurationMs": 1500, "segs": [{"utf8": "fry it"}]},
    ]
}
SRT = "1\n00:00:00,500 --> 00:00:02,000\n<i>cut</i> the\nonion\n\n2\n00:00:02,000 --> 00:00:03,500\nfry it\n"
VTT = (
    "WEBVTT\n\nNOTE a comment\n\n00:00.500 --> 00:02.000 align:start position:0%\n"
    "<c.red>cut</c> the onion\n\n00:00:02.000 --> 00:00:03.500\nfry it\n"
)
SRV1 = '<transcript><text start="0.5" dur="1.5">cut</text><text start="2" dur="1.5">fry</text></transcript>'
SRV3 = '<timedtext><body><p t="500" d="1500">cut <s>the</s> onion</p></body></timedtext>'
TTML = (
    '<tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
    '<p begin="00:00:00.500" end="00:00:02.000">cut</p><p begin="2s" end="3s">fry</p></div></body></tt>'
)
ROWS = "video_id,start,end,text\nv,0.5,2.0,cut the onion\nv,2,3.5,fry it\n"
LINES = (
    '{"video_id": "v", "start": 0.5, "end": 2.0, "text": "cut"}\n'
    '{"video_id": "v", "start": 2, "end": 3, "text": "fry"}\n'
)
ITEMS = [
    {
        "video_id": "video0",
        "clip_id": "c0",
        "segment": [1, 5],
        "caption": ["a", "b"],
        "subtitle": "s",
        "question": "what",
        "answer": ["x", "y"],
    },
    {"video_id": "video1", "desc": "a dog"},
]
YAML = """\
dataset:
  split: test
  meta_processor: MSRVTTMetaProcessor
  video_processor: VideoProcessor
  text_processor: MSRVTTTextProcessor
  aligner: DSAligner
  bert_name: bert-base-uncased
  test_path: data/msrvtt/MSRVTT_JSFUSION_test.csv
  vfeat_dir: data/feat
  max_video_len: 32
  max_len: 96
fairseq:
  dataset: {batch_size: 256, num_workers: 2}
  optimization: {lr: [5.0e-05], max_epoch: 8}
model: &model
  model_cls: MMFusionSeparate
eval: {save_path: runs/eval}
"""
TABLE = (
    "big:\n  nodes: 2\n  gpus_per_node: 8\n  sbatch: {partition: gpu, time: '24:00:00'}\n"
    "  setup: [module load x]\n"
)
ARRAY = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)


def captions(path: Path) -> Any:
    """As the commands read them."""
    return check_captions(read_captions(path), {"v": 60.0}, "drop")


def pickled_captions(path: Path) -> Any:
    processor = PKLJSONStrTextProcessor(config(path, "caption_pkl_path"), WordTokenizer())
    return vars(Captions.of(processor("v")))


def shards(folder: Path) -> Path:
    """A folder of shards with manifest and index."""
    with (
        ShardWriter(folder / "train_0", passport={"backbone": "s3d", "seconds_per_feature": 1.0}) as video,
        ShardWriter(folder / "text.bert.train_0.startends") as times,
    ):
        for _ in VIDEOS:
            video.append(ARRAY)
            times.append(np.array([[0, 2], [2, 4]], dtype=np.float32))
    save_plain_pickle({0: VIDEOS}, folder / "train_meta.pkl")
    return folder


def verified(folder: Path) -> Any:
    """All that a folder of shards holds, once its verification finds nothing."""
    if problems := verify(folder).problems:
        raise Found(problems[0])
    return [ShardedTensor.load(folder / "train_0")[i] for i in range(2)], read_manifest(folder)


def places(path: Path) -> Any:
    index = VideoIndex.open(path)
    return {index.name(i): index.place(i) for i in range(len(index))}


def id_index(folder: Path) -> Path:
    """The index made of a meta pickle."""
    VideoIndex.open(shards(folder) / "train_meta.pkl")
    return folder / "train_meta.pkl.index"


def youcook_pickle(folder: Path) -> Path:
    tree("youcook.json", YOUCOOK)(folder)
    save_plain_pickle([{"id": f"{video}_0", "caption": "pick"} for video in VIDEOS], folder / "youcook.pkl")
    return folder / "youcook.pkl"


def read_youcook(path: Path) -> Any:
    return YoucookMetaProcessor(config(path, trainval_annotation=str(path.parent / "youcook.json"))).data


def read_youcook_list(path: Path) -> Any:
    return YoucookNLGMetaProcessor(config(path, trainval_annotation=str(path.parent / "youcook.json"))).data


def read_milnce(path: Path) -> Any:
    return records_from_milnce_csv(path, path.parent / "youcook.json")


def with_youcook(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: (tree("youcook.json", YOUCOOK)(folder), make(folder))[1]


def msrvtt_captions(path: Path) -> Any:
    processor = MSRVTTTextProcessor(DatasetConfig(split="train", json_path=str(path)), WordTokenizer())
    return dict(processor.captions)


def few_shot(folder: Path) -> Path:
    names = [f"{label}/{video}" for label in "ab" for video in range(2)]
    for label in "ab":
        touch_features(folder / "features" / label, ["0", "1"])
    return text("test.list", "\n".join(names))(folder)


def read_few_shot(path: Path) -> Any:
    meta = FewShotMetaProcessor(config(path, way=2, shots=1, queries=1, episodes=2))
    return [meta[i] for i in range(2)]


WEIGHTS = {"encoder.weight": torch.arange(40.0).view(8, 5), "encoder.bias": torch.linspace(-1, 1, 8)}


def stored(name: str, **options: Any) -> Callable[[Path], Path]:
    """Weights, by torch."""

    def make(folder: Path) -> Path:
        torch.save({"model": WEIGHTS}, folder / name, **options)
        return folder / name

    return make


def safetensors(folder: Path) -> Path:
    """Weights, as `mmpt checkpoint convert` writes them."""
    save(WEIGHTS, {"model": "x"}, folder / "m.safetensors")
    return folder / "m.safetensors"


def foreign_safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(WEIGHTS, str(folder / "m.safetensors"))
    return folder / "m.safetensors"


def vectors_of_videos(folder: Path) -> Path:
    store = VectorStore.create(folder / "index", ARRAY.shape[1], False, {"model": "m"})
    store.add((video, ARRAY[:2], ARRAY[:2, :2]) for video in VIDEOS)
    store.remove(VIDEOS[:1])
    return folder / "index/index.json"


def found_vectors(path: Path) -> Any:
    store = VectorStore(path.parent)
    return store.origin, [(part.segment.removed, part.exact[:], part.rows) for part in store.mapped()]


def array(name: str, value: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / name, value)
        return folder / name

    return make


def queries(folder: Path) -> Path:
    np.savez_compressed(folder / "per_query.npz", rank=np.arange(20), ids=np.array(VIDEOS * 10))
    return folder / "per_query.npz"


def vectors(folder: Path) -> Path:
    torch.save(torch.from_numpy(ARRAY), folder / "v.pth.tar")
    return folder / "v.pth.tar"


def array_pickle(folder: Path) -> Path:
    import pickle

    (folder / "vectors").write_bytes(pickle.dumps({"a": ARRAY[0], "b": ARRAY[1]}))
    return folder / "vectors"


@lru_cache
def _whole(suffix: str) -> bytes:
    """A video of a second with sound, written once."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_clip(Path(folder, f"v{suffix}"), 1).read_bytes()


def media(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(_whole(Path(name).suffix))
        return folder / name

    return make


def sound(folder: Path) -> Path:
    wave = (3000 * np.sin(np.arange(8000) / 9)).astype(np.int16)
    return write_audio(folder / "s.wav", wave[None])


def picture(folder: Path) -> Path:
    from mmpt.pages.pictures import jpeg

    (folder / "p.jpg").write_bytes(jpeg(np.full((48, 64, 3), 90, np.uint8)))
    return folder / "p.jpg"


def stream(kind: str, **options: Any) -> Callable[[Path], Any]:
    """As training reads raw files."""

    def read(path: Path) -> Any:
        entry = {"name": "x", "path": str(path.parent), "raw": kind, **options}
        files = Modality(**entry, size=16, slice_frames=64, filters=16).files()
        return files.read(path.stem, None, 2, None)

    return read


def first_pictures(path: Path) -> Any:
    return read_frames(path, lambda n: [0, n - 1])


def gzipped(folder: Path) -> Path:
    return text("c.json.gz", gzip.compress(json.dumps({"v": SAID}).encode(), mtime=0))(folder)


def recognition(folder: Path) -> Path:
    lists = folder / "lists"
    lists.mkdir()
    touch_features(folder / "features", VIDEOS)
    path = lists / "wave_test_split1.txt"
    path.write_text("video0.avi 1\nvideo1.avi 2\n")
    return path


def read_recognition(path: Path) -> Any:
    features = str(path.parent.parent / "features")
    settings = DatasetConfig(split="test", annotation_path=str(path.parent), vfeat_dir=features)
    return RecognitionMetaProcessor(settings).data


def pickle_of(name: str, value: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_plain_pickle(value, folder / name)
        return folder / name

    return make


LEARNED = Calibration(
    *(0.9, 0.1, (Linear([0.5], [1.0], [0.2, 3.0]),) * 2, (Linear([0.5], [1.0], [0.1, 0.7]),) * 2),
    *((-1.0, 2.0), 0.5, 1.25, None, [0.3], [1]),
    settings={"aligner": "dtw", "window_s": 4},
)


def calibration(folder: Path) -> Path:
    LEARNED.save(folder / "calibration.json")
    return folder / "calibration.json"


def alignment(suffix: str) -> Callable[[Path], Path]:
    """Two captions on three windows of a video."""

    def make(folder: Path) -> Path:
        windows = np.array([[0, 4], [4, 8], [8, 12]], np.float32)
        spans, mass = {"dtw": [(0.0, 4.0), None]}, {"dtw": [0.9, None]}
        said, where = [(0.5, 3.0), (5.0, 9.0)], [(0.0, 3.0), None]
        found = ARRAY[:2, :3], np.full((2, 3), 1 / 6, np.float32)
        VideoAlignment("v", ["cut", "fry"], said, windows, *found, spans, mass, where).save(folder / "v")
        return folder / f"v{suffix}"

    return make


def own_videos(folder: Path) -> Path:
    Made(folder, VIDEOS, {"video0": "a.mp4"}, {"b": "no sound"}, {"video1": ["short"]}, {"m": 1}).save()
    return folder / "own_videos.json"


def of_run(path: Path) -> Any:
    """What a report on a run is made of, once it has nothing to say of damage."""
    found = read_run(path.parent)
    if found.unread or found.faults:
        raise Found(f"{found.unread} lines cannot be read; {found.faults}")
    return found


def proven(path: Path) -> str:
    """The page of a record whose seal holds."""
    if problems := result_problems(path.parent):
        raise Found(problems[0])
    return record_page(path.parent)


def result_record(folder: Path) -> Path:
    ranks = {"norton": {"clips": {"ranks": [1.0, 2.0, 1.0, 7.0]}}}
    table = [["", "R@1"], ["norton", cell("norton", "clips", "ranks", "R1")]]
    return write_record(folder, {"clips": table}, ranks, {}, {"protocol": {}}) / "record.json"


def run_folder(name: str) -> Callable[[Path], Path]:
    """A run that went on once, with an evaluation; the file of a name."""

    def make(folder: Path) -> Path:
        run(folder, start(0, 1), *(logged(u, f"a{u}") for u in range(1, 5)), start(3, 1), logged(4, "b4"))
        (folder / "history.jsonl").write_text('{"event": "began", "processes": 1}\n{"event": "went on"}\n')
        (folder / "results.json").write_text('{"values": {"R1": 0.5}, "intervals": {"R1": [0.2, 0.8]}}')
        return folder / name

    return make


MTEB = {"task_name": "clips", "scores": {"test": [{"recall_at_1": 0.25, "recall_at_10": 0.5}]}}
GRAM = {"run_cfg": {"seed": 50}, "model_cfg": {}, "data_cfg": {"train": [{"name": "msrvtt"}], "val": []}}
READERS = [
    Reader("list of ids", text("a.lst", "nwJ8sYLTmVc\nabcdefghijk\nx-y_z\n"), read_ids),
    Reader("MSR-VTT csv", text("t.csv", JSFUSION), items(MSRVTTMetaProcessor)),
    Reader("MSR-VTT multiple choice", text("mc.csv", QA), items(MSRVTTQAMetaProcessor)),
    Reader(
        "MSR-VTT captions",
        tree("d.json", {"sentences": [{"video_id": video, "caption": "a dog"} for video in VIDEOS]}),
        msrvtt_captions,
    ),
    Reader("YouCook2 annotation", tree("y.json", YOUCOOK), load_annotations),
    Reader("YouCook2 records", youcook_pickle, read_youcook),
    Reader("YouCook2 list", with_youcook(text("l.txt", "113/video0\n113/video1\n")), read_youcook_list),
    Reader("MIL-NCE csv", with_youcook(text("m.csv", MILNCE)), read_milnce),
    Reader("COIN annotation", tree("COIN.json", COIN), items(COINActionSegmentationMetaProcessor)),
    Reader("CrossTask tasks", text("tasks.txt", TASKS), read_tasks),
    Reader("CrossTask videos", text("v.csv", "23521,video0,http://x\n16815,video1,http://y\n"), read_videos),
    Reader("CrossTask steps", text("1_v.csv", "1,20.1,30\n2,31,40.5\n"), read_segments),
    Reader("HTM-Align", tree("h.json", {video: [[1, 2.5, 7.0, "chop"]] for video in VIDEOS}), read_sentences),
    Reader(
        "DiDeMo",
        tree("test.json", [{"video": video, "description": "red", "times": [[0, 1]]} for video in VIDEOS]),
        items(DiDeMoMetaProcessor),
    ),
    Reader("UCF101, HMDB51 lists", recognition, read_recognition),
    Reader("few-shot list", few_shot, read_few_shot),
    Reader("annotation of N modalities", tree("a.json", ITEMS), read_annotation),
    Reader("captions, SRT", text("v.srt", SRT), captions),
    Reader("captions, WebVTT", text("v.vtt", VTT), captions),
    Reader("captions, json3", tree("v.json3", JSON3), captions),
    Reader("captions, srv1", text("v.srv1", SRV1), captions),
    Reader("captions, srv3", text("v.srv3", SRV3), captions),
    Reader("captions, TTML", text("v.ttml", TTML), captions),
    Reader("captions, Whisper", tree("v.json", WHISPER), captions),
    Reader("captions, HowTo100M JSON", tree("c.json", {"v": SAID}), captions),
    Reader("captions, gzipped JSON", gzipped, captions),
    Reader("captions, pickle", pickle_of("c.pkl", {"v": json.dumps(SAID)}), pickled_captions),
    Reader("captions, JSON lines", text("c.jsonl", LINES), captions),
    Reader("captions, csv", text("c.csv", ROWS), captions),
    Reader("csv of videos", text("e.csv", "video_id,path\na,videos/a.mp4\nb,videos/b.mp4\n"), list_jobs),
    Reader("project file", text("p.yaml", YAML), load_config),
    Reader("table of machines", text("s.yaml", TABLE), lambda path: Resources.load("big", path)),
    Reader("plain pickle", pickle_of("p.pkl", {0: ["a"] * 9, "x": (1, 2.5, {3})}), load_plain_pickle),
    Reader("pickle of arrays", array_pickle, load_array_pickle),
    Reader(
        "shard, rows", lambda folder: shards(folder) / "train_0_data.npy", lambda p: verified(p.parent), True
    ),
    Reader(
        "shard, offsets",
        lambda folder: shards(folder) / "train_0_starts.npy",
        lambda path: verified(path.parent),
        True,
    ),
    Reader("manifest of shards", lambda folder: shards(folder) / "shards.json", lambda p: verified(p.parent)),
    Reader("index of ids, pickle", lambda folder: shards(folder) / "train_meta.pkl", places),
    Reader("index of ids", id_index, lambda path: places(path.with_suffix("")), True),
    Reader("passport", tree("passport.json", {"backbone": "s3d"}), lambda path: read_passport(path.parent)),
    Reader("features of a video", array("v.npy", ARRAY), load_feature),
    Reader(
        "list of words", array("dict.npy", np.array(["cut", "fry"])), lambda p: Vocabulary.from_file(p, 4).ids
    ),
    Reader("checkpoint, torch", stored("m.pt"), read_state_dict, True),
    Reader("checkpoint, old torch", stored("m.pt", _use_new_zipfile_serialization=False), read_state_dict),
    Reader("checkpoint, safetensors", safetensors, read_state_dict, True),
    Reader("checkpoint, others' safetensors", foreign_safetensors, read_state_dict),
    Reader("index of vectors", vectors_of_videos, found_vectors),
    Reader("numbers per query", queries, lambda path: load_queries(str(path.parent)), True),
    Reader("others' features, torch", vectors, read_rows),
    Reader(
        "audit, csv", text("s.csv", ",a,b\nq,0.5,0.1\nr,0.2,0.7\n"), lambda p: audit.read_table(p, "scores")
    ),
    Reader(
        "audit, predictions",
        tree("s.json", {"q": {"a": 0.5, "b": 0.1}}),
        lambda p: audit.read_table(p, "scores"),
    ),
    Reader(
        "audit, rankings",
        text("s.jsonl", '{"prediction": ["b", "a"], "label": ["a"]}\n'),
        lambda path: audit.read_table(path, "scores"),
    ),
    Reader("audit, pairs", text("p.csv", "query_id,gallery_id,caption\nq,a,x\nr,b,y\n"), audit.read_pairs),
    Reader("audit, judgements", tree("j.json", {"q": ["a", "b"]}), audit.read_judgements),
    Reader("audit, ids", text("i.txt", "a\nb\n"), audit.read_ids),
    Reader("audit, array", array("s.npy", ARRAY), lambda path: audit.read_table(path, "scores")),
    Reader("calibration", calibration, Calibration.load),
    Reader("alignment", alignment(".json"), lambda path: VideoAlignment.load(path.with_suffix(""))),
    Reader("alignment, arrays", alignment(".npz"), lambda p: VideoAlignment.load(p.with_suffix("")), True),
    Reader("record of own videos", own_videos, lambda path: Made.load(path.parent)),
    Reader("record of results", result_record, proven, True),
    Reader("results of mteb", tree("r.json", MTEB), read_mteb),
    Reader("run, log", run_folder("metrics.jsonl"), of_run),
    Reader("run, log to replay", run_folder("metrics.jsonl"), lambda path: read_log(path.parent)),
    Reader("run, history", run_folder("history.jsonl"), of_run),
    Reader("run, evaluation", run_folder("results.json"), of_run),
    Reader("GRAM's configuration", tree("g.json", GRAM), lambda path: gram_json(str(path))),
    Reader("video, every second (mp4)", media("v.mp4"), lambda p: list(read_seconds(p, 4, 16)), slow=True),
    Reader("video, every second (mkv)", media("v.mkv"), lambda p: list(read_seconds(p, 4, 16)), slow=True),
    Reader("video, a clip", media("v.mkv"), lambda path: read_clip(path, 0.4, 3, 5, 16), slow=True),
    Reader("video, frames by number", media("v.mkv"), first_pictures, slow=True),
    Reader("video, its head", media("v.mp4"), probe, slow=True),
    Reader("video, a thumbnail", media("v.mp4"), lambda path: frame_at(path, 0.5, 16), slow=True),
    Reader("sound, every second", media("v.mkv"), lambda p: list(read_audio_windows(p, 8000)), slow=True),
    Reader(
        "sound, around a moment", media("v.mkv"), lambda p: read_audio_around(p, 0.2, 0.5, 8000), slow=True
    ),
    Reader("sound, whole (wav)", sound, lambda path: read_audio(path, 8000), slow=True),
    Reader("raw stream, sound", sound, stream("sound"), slow=True),
    Reader("raw stream, picture", picture, stream("frames"), slow=True),
    Reader("raw stream, array", array("a.npy", np.zeros((3, 8, 8, 3), np.uint8)), stream("frames")),
]
