from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.processors import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
    DiDeMoAligner,
    DiDeMoMetaProcessor,
    DiDeMoTextProcessor,
    DSAligner,
    DSNLGAligner,
    MetaTextBinarizer,
    NLGTextProcessor,
)
from mmpt.processors.annotations import span
from mmpt.processors.sets.crosstask import read_segments, read_tasks, read_videos, split_videos
from tests.conftest import golden_cases, load_golden, real_path
from tests.processors.helpers import CONFIG, SPECIAL, WordTokenizer, touch_features, write_json
from tests.processors.items import VIDEO, assert_matches, sentence


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_ds_aligner(golden):
    video = golden["video_feature"]
    assert_matches(golden, "ds_aligner", DSAligner(CONFIG, SPECIAL)("v", video, sentence(golden, 0)))
    assert_matches(
        golden, "ds_aligner_short", DSAligner(CONFIG, SPECIAL)("v", video[:5], sentence(golden, 1) * 9)
    )


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_coin_aligner(golden):
    aligner, video = COINActionSegmentationAligner(CONFIG, SPECIAL), golden["video_feature"]
    assert_matches(
        golden, "coin_aligner", aligner("v", video[:53], [(5, 3.2, 11.1), (2, 20, 29.5), (7, 40.7, 90)])
    )
    assert_matches(golden, "coin_aligner_short", aligner("v", video[:7], [(3, 2.5, 5.2)]))


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_crosstask_aligner(golden):
    text = [sentence(golden, i) for i in range(3)], [(0, 3.2, 9.9), (2, 12.0, 20.1), (1, 30.5, 33.2)]
    item = CrossTaskAligner(CONFIG, SPECIAL)(
        ("task", "v", ["step"] * 3, 3), golden["video_feature"][:45], text
    )
    assert_matches(golden, "crosstask_aligner", item)


@pytest.mark.parametrize("path", golden_cases("tempclr_crosstask_split*.npz"))
def test_golden_tempclr_crosstask_split(path):
    golden = load_golden(path)
    for case in range(int(golden["n_cases"])):
        tasks = golden[f"c{case}_tasks"].tolist()
        videos = {task: golden[f"c{case}_task_{task}_videos"].tolist() for task in tasks}
        train, test = split_videos(
            videos, golden[f"c{case}_primary"].tolist(), int(golden[f"c{case}_n_train"])
        )
        for task in tasks:
            assert train[task] == golden[f"c{case}_task_{task}_train"].tolist()
            assert test[task] == golden[f"c{case}_task_{task}_test"].tolist()


def test_a_span_is_clamped_to_the_video():
    assert span(-3.5, 2.1, 10) == slice(0, 3)
    assert span(8.2, 40, 10) == slice(8, 10)


@pytest.mark.parametrize("changes", [{"sliding_window": 0}, {"sliding_window_size": 17}])
def test_windows_that_cannot_work_are_refused(changes):
    with pytest.raises(ValueError, match="dataset.sliding_window"):
        COINActionSegmentationAligner(replace(CONFIG, **changes), SPECIAL)


def test_coin_lists_the_subset_and_the_names_of_the_steps(tmp_path):
    def video(subset, *steps):
        return {
            "subset": subset,
            "annotation": [
                {"id": str(step), "label": f"step {step}", "segment": [step, step + 2.5]} for step in steps
            ],
        }

    database = {"a": video("training", 3), "b": video("testing", 7, 2), "c": video("testing", 2)}
    path = write_json(tmp_path / "COIN.json", {"database": database})
    config = replace(
        CONFIG,
        split="test",
        test_path=path,
        train_path=path,
        vfeat_dir=str(touch_features(tmp_path / "f", "ab")),
    )
    meta = COINActionSegmentationMetaProcessor(config)
    assert list(meta) == [("b", [(7, 7, 9.5), (2, 2, 4.5)])]
    assert meta.step_names == {2: "step 2", 7: "step 7"}
    assert meta.missing == {"have no features": ["c"]}
    assert [video for video, _ in COINActionSegmentationMetaProcessor(replace(config, split="train"))] == [
        "a"
    ]
    assert COINActionSegmentationTextProcessor(config)(meta[0][1]) == meta[0][1]


def crosstask(tmp_path):
    (tmp_path / "primary.txt").write_text("11\nMake Tea\nhttp://x\n2\nboil water,pour water\n\n")
    (tmp_path / "related.txt").write_text("22\nMake Jam\nhttp://y\n1\ncook fruit\n\n")
    (tmp_path / "videos.csv").write_text(
        "".join(f"{task},{task}v{i},http://z\n" for i in range(4) for task in (11, 22)) + "11,gone,http://z\n"
    )
    (tmp_path / "val.csv").write_text("11,11v0,http://z\n")
    (tmp_path / "annotations").mkdir()
    names = [f"{task}v{i}" for i in range(4) for task in (11, 22)]
    for name in names:
        (tmp_path / "annotations" / f"{name[:2]}_{name}.csv").write_text(
            "2,1.5,3.2\n" if name[0] == "1" else "1,0,4\n"
        )
    return replace(
        CONFIG,
        split="train",
        n_train=1,
        train_csv_path=f"{tmp_path}/videos.csv",
        val_csv_path=f"{tmp_path}/val.csv",
        train_path=f"{tmp_path}/videos.csv",
        val_path=f"{tmp_path}/val.csv",
        primary_path=f"{tmp_path}/primary.txt",
        related_path=f"{tmp_path}/related.txt",
        annotation_path=f"{tmp_path}/annotations",
        vfeat_dir=str(touch_features(tmp_path / "features", names)),
    )


def test_crosstask_splits_primary_tasks_and_keeps_validation_videos_out(tmp_path):
    config = crosstask(tmp_path)
    train = [video_id[1] for video_id, _ in CrossTaskMetaProcessor(config)]
    test = [video_id[1] for video_id, _ in CrossTaskMetaProcessor(replace(config, split="valid"))]
    assert sorted(train + test) == ["11v1", "11v2", "11v3", "22v0", "22v1", "22v2", "22v3"]
    assert len(test) == 2 and all(name.startswith("11") for name in test)


def test_crosstask_items_lead_to_targets_of_their_steps(tmp_path):
    config = crosstask(tmp_path)
    video_id, text_id = CrossTaskMetaProcessor(replace(config, split="valid"))[0]
    text = CrossTaskTextProcessor(config, WordTokenizer())(text_id)
    assert text == ([[14, 15], [14, 15]], [(1, 1.5, 3.2)])
    item = CrossTaskAligner(config, SPECIAL)(video_id, CrossTaskVideoProcessor(config)(video_id), text)
    assert item["targets"][:5, 1].tolist() == [0, 1, 1, 1, 0] and item["targets"][:, 0].sum() == 0
    assert (item["task"], item["video_len"].item(), len(item["targets"])) == ("11", 20, 16 + 12)


def test_reversed_crosstask_segments_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,5.0,2.0\n")
    with pytest.raises(ValueError, match="step 1 runs from 5.0 to 2.0"):
        read_segments(tmp_path / "a.csv")


def test_a_task_with_a_wrong_number_of_steps_is_refused(tmp_path):
    (tmp_path / "tasks.txt").write_text("11\nMake Tea\nhttp://x\n3\nboil water,pour water\n\n")
    with pytest.raises(ValueError, match="task 11 states 3 steps and lists 2"):
        read_tasks(tmp_path / "tasks.txt")


def test_the_real_crosstask_release_has_the_known_numbers():
    folder = real_path("crosstask")
    assert (
        len(read_tasks(folder / "tasks_primary.txt")) == 18
        and len(read_tasks(folder / "tasks_related.txt")) == 65
    )
    assert sum(map(len, read_videos(folder / "videos.csv").values())) == 4700
    assert sum(map(len, read_videos(folder / "videos_val.csv").values())) == 360


def test_didemo_items_are_descriptions(tmp_path):
    records = [
        {"video": "a.avi", "description": "a bird", "times": [[0, 0]]},
        {"video": "gone.mp4", "description": "x", "times": [[1, 1]]},
    ]
    config = replace(
        CONFIG,
        split="test",
        test_path=write_json(tmp_path / "test_data.json", records),
        vfeat_dir=str(touch_features(tmp_path / "f", ["a.avi"])),
    )
    meta = DiDeMoMetaProcessor(config)
    assert list(meta) == [("a.avi", "a bird")]
    item = DiDeMoAligner(config, SPECIAL)(
        "a.avi", VIDEO, DiDeMoTextProcessor(config, WordTokenizer())("a bird")
    )
    assert item["caps"][:5].tolist() == [1, 2, 11, 14, 2]


def test_didemo_is_a_test_only(tmp_path):
    with pytest.raises(ValueError, match="zero-shot test"):
        DiDeMoMetaProcessor(replace(CONFIG, split="train", train_path=str(tmp_path / "train_data.json")))


def nlg(split):
    ids, text = NLGTextProcessor(CONFIG, WordTokenizer())("cut the onion")
    return DSNLGAligner(replace(CONFIG, split=split), SPECIAL, WordTokenizer())("v", VIDEO[:5], (ids, text))


def test_captioning_trains_on_the_shifted_caption():
    item = nlg("train")
    assert item["caps"][:7].tolist() == [1, 2, 1, 13, 13, 15, 0]
    assert item["text_label"][:7].tolist() == [-100, -100, 13, 13, 15, 2, -100]
    assert item["attention_mask"].shape == (48, 48)
    assert (
        not item["attention_mask"][18, 19] and item["attention_mask"][19, 18]
    )  # a word sees those before it only


def test_captioning_is_tested_from_the_prompt_alone():
    item = nlg("test")
    assert item["caps"].tolist() == [1, 2, 1] and item["ref"] == "xxx xxx xxxxx"
    assert item["text_label"][2:6].tolist() == [13, 13, 15, 2] and item["cmasks"].all()


def test_the_binarizer_tokenises_what_the_list_gives():
    assert MetaTextBinarizer(CONFIG, WordTokenizer())("a bb") == [11, 12]


def test_later_coin_segments_overwrite_earlier_ones():
    item = COINActionSegmentationAligner(CONFIG, SPECIAL)("v", VIDEO[:6], [(1, 0, 4), (2, 2.5, 9)])
    assert item["video_targets"].tolist() == [1, 1, 2, 2, 2, 2]
    assert item["targets"].dtype == torch.int64 and np.all(item["targets"][0, 6:].numpy() == -100)
