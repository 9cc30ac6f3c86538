"""predict.py on the shipped test files: true file formats, real parts, a tiny untrained model."""

import json
import pickle

import numpy as np
import pytest

from mmpt.config import load_config
from mmpt_cli import predict
from tests.conftest import ROOT

WORDS = "chop fry the onion egg pan cut add a".split()
VIDEOS = [f"video{i}" for i in range(6)]
SENTENCES = ["chop the onion", "fry the egg", "add a egg", "cut the onion", "fry a onion", "add the pan"]
SECONDS = 40


def write_model(folder):
    """A BERT of two layers."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(special + WORDS) + "\n")
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 128,
    }
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(special + WORDS),
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_retrieval(folder):
    rows = [
        f"ret{i},msr{i},{video},{text}" for i, (video, text) in enumerate(zip(VIDEOS, SENTENCES, strict=True))
    ]
    (folder / "msrvtt.csv").write_text("\n".join(["key,vid_key,video_id,sentence", *rows]) + "\n")
    rows = ["\t".join([f"msr{i}", *SENTENCES[:5], str(i % 5)]) for i in range(6)]
    (folder / "mc.tsv").write_text("\n".join(["vid_key\ta1\ta2\ta3\ta4\ta5\tanswer", *rows]) + "\n")
    times = [[0, 0], [0, 1], [1, 1]]
    moments = [
        {"video": video, "description": text, "times": times}
        for video, text in zip(VIDEOS, SENTENCES, strict=True)
    ]
    (folder / "didemo_test.json").write_text(json.dumps(moments))


def write_youcook(folder):
    clips = [{"segment": [10 * i, 10 * i + 8], "id": i, "sentence": SENTENCES[i]} for i in range(3)]
    (folder / "youcook.json").write_text(
        json.dumps({"database": {v: {"subset": "validation", "annotations": clips} for v in VIDEOS}})
    )
    records = [{"id": f"{video}_{i}", "caption": SENTENCES[i]} for video in VIDEOS for i in range(3)]
    (folder / "val_list.txt").write_text("".join(f"113/{video}\n" for video in VIDEOS))
    (folder / "youcook.pkl").write_bytes(pickle.dumps(records))


def write_steps(folder):
    steps = [
        {"id": str(i + 1), "label": SENTENCES[i], "segment": [12.0 * i, 12.0 * i + 7.5]} for i in range(3)
    ]
    (folder / "COIN.json").write_text(
        json.dumps({"database": {video: {"subset": "testing", "annotation": steps} for video in VIDEOS}})
    )
    (folder / "tasks.txt").write_text("1\nmake\nurl\n3\nchop the onion,fry the egg,add a egg\n\n")
    (folder / "related.txt").write_text("2\nbake\nurl\n1\nadd the pan\n\n")
    (folder / "videos.csv").write_text("".join(f"1,{video},url\n" for video in VIDEOS))
    (folder / "videos_val.csv").write_text("1,elsewhere,url\n")
    (folder / "annotations").mkdir()
    for video in VIDEOS:
        (folder / "annotations" / f"1_{video}.csv").write_text("1,0.5,6.2\n2,10.0,17.5\n3,30.0,36.0\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All annotation formats over the same six videos."""
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "bert")
    (folder / "features").mkdir()
    rng = np.random.default_rng(0)
    for video in VIDEOS:
        np.save(folder / "features" / f"{video}.npy", rng.normal(size=(SECONDS, 512)).astype(np.float16))
    for write in write_retrieval, write_youcook, write_steps:
        write(folder)
    return folder


RETRIEVAL = ["test_path={world}/msrvtt.csv"]
YOUCOOK = ["test_path={world}/youcook.pkl", "trainval_annotation={world}/youcook.json"]
CROSSTASK = [
    "train_csv_path={world}/videos.csv",
    "val_csv_path={world}/videos_val.csv",
    "primary_path={world}/tasks.txt",
    "related_path={world}/related.txt",
    "annotation_path={world}/annotations",
    "n_train=2",
]
CASES = {
    "retri/norton/test_vtt_zs": (RETRIEVAL, 6),
    "retri/norton/test_vttqa_zs": (["test_path={world}/mc.tsv"], 6),
    "retri/norton/test_youcook_zs": (YOUCOOK, 18),
    "retri/norton/test_youcook_fullvideo_zs": (YOUCOOK, 6),
    "retri/norton/test_youcook_fullvideo_bg_zs": (YOUCOOK, 6),
    "retri/norton/test_coin_zs": (["test_path={world}/COIN.json"], 6),
    "retri/norton/test_coin_ft": (["test_path={world}/COIN.json"], 6),
    "retri/videoclip/test_crosstask_zs_videoclip": (CROSSTASK, 4),
    "retri/videoclip/test_didemo_zs": (["test_path={world}/didemo_test.json"], 6),
    "mtm/vlm/test_youcookcap": (
        ["test_path={world}/val_list.txt", "trainval_annotation={world}/youcook.json"],
        18,
    ),
}
PICTURES = {
    "RetrievalMetric": ["ranks", "scores"],
    "FullVideoRetrievalMetric": ["ranks", "scores", "alignment", "shift"],
    "FullVideoBGRetrievalMetric": ["ranks", "scores", "alignment", "shift"],
    "COINActionSegmentationMetric": ["timeline"],
    "CrossTaskMetric": ["timeline"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_shipped_test_file_runs_on_files_of_its_format(name, world, tmp_path):
    paths, n_queries = CASES[name]
    settings = [f"dataset.{path.format(world=world)}" for path in paths]
    settings += [
        f"dataset.bert_name={world}/bert",
        f"dataset.vfeat_dir={world}/features",
        "fairseq.dataset.num_workers=0",
    ]
    settings += [
        "model.init=random",
        "model.num_hidden_video_layers=1",
        "dataset.num_iso_layer=2",
        "eval.bootstrap=20",
    ]
    arguments = [text for setting in settings for text in ("--set", setting)]
    project = str(ROOT / "projects" / f"{name}.yaml")
    predict.main(
        [project, "--untrained", "--device", "cpu", "--plots", "--output", str(tmp_path), *arguments]
    )
    found = json.loads((tmp_path / "untrained" / "results.json").read_text())
    assert (
        all(np.isfinite(value) for value in found["values"].values())
        and found["best_metric"] in found["values"]
    )
    with np.load(tmp_path / "untrained" / "per_query.npz") as stored:
        assert len(stored["ids"]) == len(set(stored["ids"])) == n_queries
    pictures = PICTURES.get(load_config(project).metric, [])
    assert sorted(path.stem for path in (tmp_path / "untrained").glob("*.png")) == sorted(pictures)


@pytest.mark.parametrize(
    ("task", "n_missing", "n_queries"), [("test_youcook_zs", 3, 18), ("test_youcook_fullvideo_zs", 1, 6)]
)
def test_a_lost_video_counts_as_its_clips_or_as_itself(task, n_missing, n_queries, world, tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    for video in VIDEOS[1:]:
        (features / f"{video}.npy").symlink_to(world / "features" / f"{video}.npy")
    config = load_config(ROOT / "projects" / "retri" / "norton" / f"{task}.yaml")
    settings = [f"dataset.{path.format(world=world)}" for path in YOUCOOK]
    settings += [
        f"dataset.bert_name={world}/bert",
        f"dataset.vfeat_dir={features}",
        "fairseq.dataset.num_workers=0",
        "model.init=random",
    ]
    arguments = [text for setting in [*settings, "eval.bootstrap=0"] for text in ("--set", setting)]
    predict.main(
        [config.source, "--untrained", "--device", "cpu", "--output", str(tmp_path / "out"), *arguments]
    )
    found = json.loads((tmp_path / "out" / "untrained" / "results.json").read_text())
    assert (
        found["missing"] == {"have no features": ["video0"] * 3}
        and found["facts"]["queries"] == n_queries - n_missing
    )
    low, high = found["if_missing_were_there"]["R1"]
    assert high - low >= n_missing / n_queries >= high - found["values"]["R1"] - 1e-9
