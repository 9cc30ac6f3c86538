import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.processors import (
    ModalityAligner,
    ModalityMetaProcessor,
    ModalityTextProcessor,
    ModalityVideoProcessor,
)
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.modalities import (
    Item,
    ModalityKeys,
    read_annotation,
    read_modalities,
    sample_positions,
)
from mmpt.utils import ShardWriter, save_plain_pickle
from mmpt.utils.seed import ItemRandom
from tests.processors.helpers import SPECIAL, WordTokenizer

ROWS = [
    {"clip_id": "c0", "video_id": "v0", "segment": [2, 6], "caption": ["a bb", "ccc"], "subtitle": "dd dd"},
    {"clip_id": "c1", "video_id": "v1", "segment": [0, 3], "desc": "a", "subtitle": ""},
    {"video_id": "v2", "vast_cap": "bb", "subtitle": "  "},
]


def save(folder, name, seconds, width, rate=1):
    folder.mkdir(exist_ok=True, parents=True)
    np.save(
        folder / f"{name}.npy", np.repeat(np.arange(seconds * rate, dtype=np.float16)[:, None], width, axis=1)
    )


@pytest.fixture
def config(tmp_path):
    """v0, v1, v2 of ten seconds; sound at two vectors a second, absent in v2."""
    for name in ("v0", "v1", "v2"):
        save(tmp_path / "video", name, 10, 4)
        if name != "v2":
            save(tmp_path / "audio", name, 10, 3, rate=2)
    (tmp_path / "anno.json").write_text(json.dumps(ROWS))
    return DatasetConfig(
        train_path=str(tmp_path / "anno.json"),
        test_path=str(tmp_path / "anno.json"),
        split="train",
        max_video_len=6,
        max_len=14,
        on_missing="mask",
        modalities={
            "video": {"path": str(tmp_path / "video"), "width": 4},
            "audio": {"path": str(tmp_path / "audio"), "width": 3, "rate": 2, "max_len": 10},
            "subtitle": {"max_len": 8},
        },
    )


def dataset(config):
    parts = (
        ModalityMetaProcessor(config),
        ModalityVideoProcessor(config),
        ModalityTextProcessor(config, WordTokenizer()),
    )
    return MMDataset(
        *parts,
        ModalityAligner(config, SPECIAL),
        fixed=config.split == "test",
        skip_missing=config.on_missing != "error",
    )


def write(config, rows):
    with open(config.train_path, "w") as file:
        json.dump(rows, file)


def test_an_annotation_keeps_all_captions_and_joins_rows_of_one_item(config):
    write(config, [*ROWS, {"clip_id": "c0", "caption": "dddd"}])
    items = read_annotation(config.train_path)
    assert items[0] == Item("c0", "v0", (2, 6), ("a bb", "ccc", "dddd"), "dd dd")
    assert items[2] == Item("v2", "v2", None, ("bb",), "")


def test_a_file_of_reference_captions_is_an_annotation(config):
    rows = [{"video_id": name, "caption": caption} for name, caption in (("a", "x"), ("b", "y"), ("a", "z"))]
    write(config, {"annotations": rows})
    found = {item.id: item.captions for item in read_annotation(config.train_path)}
    assert found == {"a": ("x", "z"), "b": ("y",)}
    for content in ([], {}, {"annotations": []}, {"sentences": rows}):
        write(config, content)
        with pytest.raises(ValueError, match="expected a non-empty JSON list"):
            read_annotation(config.train_path)


def test_the_kind_of_caption_is_chosen(config):
    kinds = {"vision_cap": ["a pan", "a spoon"], "audio_cap": ["water boils"], "vast_cap": "someone cooks"}
    write(config, [{"clip_id": "c0", **kinds}])
    assert read_annotation(config.train_path)[0].captions == ("someone cooks",)
    for key, captions in kinds.items():
        chosen = read_annotation(config.train_path, [key])[0].captions
        assert chosen == ((captions,) if isinstance(captions, str) else tuple(captions))
    with pytest.raises(ValueError, match="no caption; expected one of the keys omni_cap"):
        read_annotation(config.train_path, ["omni_cap"])


KINDS = {"subtitle": "dd", "vast_cap": "a", "vision_cap": ["bb bb", "bb bb"], "audio_cap": "ccc"}


def test_a_condition_may_have_captions_of_its_own(config):
    write(config, [{"id": "v0", **KINDS}, {"id": "v1", **KINDS, "audio_cap": ["ccc"]}])
    own = {"tv": ["vision_cap"], "at": ["audio_cap"]}
    item = dataset(replace(config, condition_captions=own, mask_captions=0.6))[1]
    for key, words in {"caps": [11], "caps_v": [12, 12], "caps_a": [13]}.items():
        assert item[key][item[key.replace("caps", "cmasks")]].tolist()[2:-1] == words
        assert item[f"masked_{key}"].shape == item[key].shape
    short = dataset(replace(config, condition_captions=own, mask_captions=0.6, condition_len=4))[1]
    assert [len(short[key]) for key in ("caps", "caps_v", "masked_caps_a")] == [len(item["caps"]), 4, 4]
    chosen = item["caption_labels_v"] != -100
    assert torch.equal(item["caption_labels_v"][chosen], item["caps_v"][chosen])
    tested = dataset(replace(config, condition_captions=own, split="test"))[0]
    assert not {"caps_v", "caps_a"} & set(tested)


@pytest.mark.parametrize("lacking", [None, []])
def test_an_item_that_lacks_the_captions_of_a_condition_is_named(config, lacking):
    write(config, [{"id": "v0", **KINDS}, {"id": "v1", **KINDS, "audio_cap": lacking}])
    with pytest.raises(ValueError, match="row 1 has no caption; expected one of the keys audio_cap"):
        dataset(replace(config, condition_captions={"ta": ["audio_cap"]}))
    with pytest.raises(ValueError, match="condition 'tx': expected t and first letters"):
        ModalityKeys(condition_captions={"tx": ["audio_cap"]})


@pytest.mark.parametrize(
    "row, match",
    [
        ({"caption": "a"}, "row 0 has no id"),
        ({"id": "x"}, "row 0 has no caption"),
        ({"id": "x", "desc": "a", "segment": [3, 3]}, "segment"),
    ],
)
def test_a_row_that_lacks_something_is_named(config, row, match):
    write(config, [row])
    with pytest.raises(ValueError, match=match):
        read_annotation(config.train_path)


def test_windows_are_the_same_seconds_at_each_rate(config):
    item = dataset(config)[0]
    assert item["video_feats"][:, 0].tolist() == [2, 3, 4, 5, 0, 0] and item["video_masks"].sum() == 4
    assert item["audio_feats"][:8, 0].tolist() == list(range(4, 12)) and item["audio_masks"].sum() == 8


def test_what_is_missing_is_masked_and_an_empty_subtitle_is_missing(config):
    data = dataset(config)
    batch = data.collate([data[i] for i in range(3)])
    assert batch["present"].tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert not batch["audio_masks"][2].any() and not batch["audio_feats"][2].any()
    assert batch["subtitle_cmasks"].sum(1).tolist() == [5, 3, 3]


def test_training_draws_a_caption_and_a_test_has_them_all(config):
    data = dataset(config)
    drawn = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        drawn.add(tuple(data[0]["caps"][2:4].tolist()))
    assert drawn == {(11, 12), (13, 2)}
    test = dataset(replace(config, split="test"))
    batch = test.collate([test[i] for i in range(3)])
    assert batch["caps"].shape == (3, 2, 8) and batch["caption_valid"].tolist() == [
        [True, True],
        [True, False],
        [True, False],
    ]


def test_items_that_lack_something_can_be_dropped_or_refused(config):
    assert [item.id for item in dataset(replace(config, on_missing="drop")).meta_processor.data] == ["c0"]
    with pytest.raises(MissingData, match="1 ids have no audio: v2"):
        dataset(replace(config, on_missing="error"))


def test_a_modality_that_is_absent_everywhere_is_an_error(config):
    write(config, [{**row, "subtitle": ""} for row in ROWS])
    with pytest.raises(MissingData, match="dataset.modalities.subtitle: none of the 3 items"):
        dataset(config)


def test_rates_that_contradict_each_other_are_found(config):
    wrong = {**config.modalities, "audio": {**config.modalities["audio"], "rate": 4}}
    with pytest.raises(ValueError, match=r"audio.rate=4.*0.50 times"):
        dataset(replace(config, modalities=wrong))


def test_streams_that_differ_by_one_row_at_the_end_are_accepted(config, tmp_path):
    for name in ("v0", "v1", "v2"):
        save(tmp_path / "video", name, 3, 4)
        if name != "v2":
            save(tmp_path / "audio", name, 4, 3)
    equal = {**config.modalities, "audio": {**config.modalities["audio"], "rate": 1}}
    assert len(dataset(replace(config, modalities=equal))) == 3


def test_a_wrong_width_is_named(config):
    wrong = {**config.modalities, "audio": {**config.modalities["audio"], "width": 5}}
    with pytest.raises(ValueError, match=r"audio of 'v0' has shape \(20, 3\)"):
        dataset(replace(config, modalities=wrong))[0]


@pytest.mark.parametrize(
    "entry, match", [({"rat": 2}, "Did you mean .*rate"), ({"rate": 0}, "above 0, got 0")]
)
def test_a_wrong_entry_is_named(config, entry, match):
    with pytest.raises(ValueError, match=match):
        read_modalities(replace(config, modalities={"video": entry}))


def test_a_stream_that_ends_before_the_segment_is_missing(config):
    write(config, [ROWS[0], {**ROWS[1], "segment": [12, 14], "subtitle": "a"}])
    assert dataset(config)[1]["present"].tolist() == [False, False, True]
    with pytest.raises(MissingData, match="'c1' has no video, audio in its segment"):
        dataset(replace(config, split="test", on_missing="drop"))[1]


def test_dropout_hides_modalities_in_their_share_but_never_all(config):
    data = dataset(replace(config, modality_dropout=0.6))
    present = []
    for epoch in range(300):
        data.set_epoch(epoch)
        present.append(data[0]["present"])
    present = torch.stack(present).float()
    assert present.any(1).all()
    expected = 0.4 + 0.6**3 / 3
    assert (present.mean(0) - expected).abs().max() < 0.1
    assert dataset(replace(config, modality_dropout=0.6, split="test"))[0]["present"].all()


def test_shards_and_files_give_the_same_items(config, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    with ShardWriter(folder / "train_0") as writer:
        for name in ("v1", "v0"):
            writer.append(np.load(tmp_path / "audio" / f"{name}.npy"))
    save_plain_pickle({0: ["v1", "v0"]}, folder / "train_meta.pkl")
    sharded = {**config.modalities, "audio": {**config.modalities["audio"], "path": str(folder)}}
    files, shards = dataset(config), dataset(replace(config, modalities=sharded))
    for index in range(3):
        expected, found = files[index], shards[index]
        assert expected.pop("video_id") == found.pop("video_id")
        torch.testing.assert_close(found, expected)


def test_chunks_are_nearly_equal_and_the_first_ones_larger():
    assert sample_positions(7, 3, "chunk_middle").tolist() == [1, 3, 5]  # chunks 0-2, 3-4, 5-6
    assert sample_positions(8, 3, "uniform").tolist() == [0, 4, 7]
    assert sample_positions(2, 3, "chunk_middle").tolist() == [0, 1]
    draws = np.array(
        [sample_positions(7, 3, "chunk_random", np.random.default_rng(seed)) for seed in range(100)]
    )
    assert [set(column.tolist()) for column in draws.T] == [{0, 1, 2}, {3, 4}, {5, 6}]


def test_features_that_are_not_finite_are_refused(config, tmp_path):
    np.save(tmp_path / "audio" / "v0.npy", np.full((20, 3), np.nan, np.float16))
    with pytest.raises(ValueError, match="audio of c0"):
        dataset(config)[0]


def test_the_synthetic_world_is_read(toy_world):
    root = toy_world
    config = DatasetConfig(
        train_path=f"{root}/clips/train.json",
        bert_name=str(root / "model"),
        split="train",
        max_video_len=16,
        max_len=48,
        on_missing="mask",
        modalities={
            "video": {"path": f"{root}/how2/feat"},
            "audio": {"path": f"{root}/how2/audio", "width": 128},
            "subtitle": {"max_len": 40},
        },
    )
    meta = ModalityMetaProcessor(config)
    item = ModalityAligner(config)(*_parts(config, meta[0]), ItemRandom(0))
    assert (
        item["video_feats"].shape == (16, 512)
        and item["audio_feats"].shape == (16, 128)
        and item["subtitle_caps"].shape == (40,)
    )


def _parts(config, ids):
    return (
        ids[0],
        ModalityVideoProcessor(config)(ids[0]),
        ModalityTextProcessor(config)(ids[1], ItemRandom(0)),
    )


def test_maps_keep_their_places(config, tmp_path):
    (tmp_path / "maps").mkdir()
    for name in ("v0", "v1", "v2"):
        np.save(
            tmp_path / "maps" / f"{name}.npy",
            np.arange(10 * 2 * 3 * 4, dtype=np.float32).reshape(10, 2, 3, 4),
        )
    entry = {"path": str(tmp_path / "maps"), "width": 4, "map": [2, 3]}
    item = dataset(replace(config, modalities={"maps": entry}))[0]
    assert (
        item["maps_feats"].shape == (6, 2, 3, 4) and item["maps_masks"].tolist() == [True] * 4 + [False] * 2
    )
    assert (
        item["maps_feats"][0].flatten().tolist() == list(range(2 * 24, 3 * 24))
        and not item["maps_feats"][4:].any()
    )
    with pytest.raises(ValueError, match=r"expected \(time, 3, 2, 4\)"):
        dataset(replace(config, modalities={"maps": {**entry, "map": [3, 2]}}))[0]


def test_versions_of_different_length_are_refused(config, tmp_path):
    folder = tmp_path / "pairs"
    for name in ("v0", "v1", "v2"):
        save(folder, f"{name}_aug0", 10, 4)
        save(folder, f"{name}_aug1", 9 if name == "v0" else 10, 4)
    data = dataset(replace(config, modalities={"video": {"path": str(folder), "width": 4, "versions": 2}}))
    assert data[1]["video_feats"].shape == (6, 8)
    with pytest.raises(
        ValueError, match="versions of one video differ in shape: v0_aug0 .10, 4., v0_aug1 .9, 4."
    ):
        data[0]


@pytest.mark.parametrize(
    "mode, split",
    [("chunk", "train"), ("chunk_random", "valid"), ("chunk_middle", "train"), ("uniform", "train")],
)
def test_the_sampler_that_the_file_names_draws_the_rows(config, mode, split):
    short = {"video": {**config.modalities["video"], "max_len": 2}}
    data = dataset(
        replace(config, modalities=short, frame_sampling=mode, split=split, val_path=config.train_path)
    )
    drawn = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        drawn.add(tuple(data[0]["video_feats"][:, 0].tolist()))
    random = {(a, b) for a in (2, 3) for b in (4, 5)}  # seconds 2 to 5
    assert (
        drawn
        == {"chunk": random, "chunk_random": random, "chunk_middle": {(2, 4)}, "uniform": {(2, 5)}}[mode]
    )


QUESTIONS = [
    {"video_id": "v0", "question": "a bb", "answer": "ccc", "subtitle": "dd"},
    {"video_id": "v0", "question": ["bb", "a"], "answer": ["dddd", ["eeeee", "ffffff"]]},
    {"video_id": "v1", "question": "bb a", "answer": ["a", "bb"], "caption": "ccc"},
]


@pytest.fixture
def asked(config, tmp_path):
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    paths = {key: str(tmp_path / "questions.json") for key in ("train_path", "test_path")}
    return replace(config, **paths, answer_len=6, question_len=7)


def test_in_training_every_question_is_an_item(asked):
    items = dataset(asked)
    assert len(items) == 4
    item = items[0]
    assert item["question_caps"].tolist() == [1, 2, 11, 12, 2, 0, 0]
    assert item["answer_cmasks"].tolist() == [True, True, True, True, False, False]
    wanted = torch.where(item["answer_labels"] == -100, item["masked_answers"], item["answer_labels"])
    assert wanted.tolist() == [1, 2, 13, 2, 0, 0]
    assert (item["answer_labels"] != -100).any() and item["answer_labels"][1] == -100


def test_one_of_several_right_answers_is_drawn(asked):
    drawn = set()
    items = dataset(asked)
    for epoch in range(8):
        items.set_epoch(epoch)
        drawn.add(int(items[3]["answer_cmasks"].sum()))
        labels = torch.where(
            items[3]["answer_labels"] == -100, items[3]["masked_answers"], items[3]["answer_labels"]
        )
        drawn.add(int(labels[2]))
    assert {11, 12} <= drawn


def test_a_test_item_has_all_its_questions_padded_to_the_most(asked):
    items = dataset(replace(asked, split="test"))
    batch = items.collate([items[0], items[1]])
    assert batch["question_caps"].shape == (2, 3, 7)
    assert batch["questions"] == [("a bb", "bb", "a"), ("bb a", "", "")]
    assert batch["answers"] == [(("ccc",), ("dddd",), ("eeeee", "ffffff")), (("a", "bb"), (), ())]
    assert batch["references"] == [[], ["ccc"]]


@pytest.mark.parametrize(
    "row", [{"question": "a"}, {"question": ["a", "bb"], "answer": ["a"]}, {"question": ["a"], "answer": "a"}]
)
def test_a_question_without_an_answer_is_refused(tmp_path, row):
    (tmp_path / "anno.json").write_text(json.dumps([{"video_id": "v0", **row}]))
    with pytest.raises(ValueError, match="anno.json: row 0 has . question.s. and no answer to each"):
        read_annotation(tmp_path / "anno.json")


def test_masked_captions_hold_the_words_that_labels_name(config):
    item = dataset(replace(config, mask_captions=0.6))[0]
    restored = torch.where(item["caption_labels"] == -100, item["masked_caps"], item["caption_labels"])
    assert torch.equal(restored, item["caps"])
    assert (item["caption_labels"] != -100).any() and (item["caption_labels"][:2] == -100).all()
    assert not (item["caption_labels"][~item["cmasks"]] != -100).any()
