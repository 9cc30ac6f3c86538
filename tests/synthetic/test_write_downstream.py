import csv
import json

import numpy as np
import pytest

from mmpt.synthetic.vocabulary import WordPiece


def read_csv(path, delimiter=","):
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def load(path):
    return json.loads(path.read_text())


def test_coin_labels_are_numbered_from_one_and_those_of_the_test_videos_have_no_gap(root):
    database = load(root / "coin" / "COIN.json")["database"]
    names = {"training": {}, "testing": {}}
    for entry in database.values():
        for step in entry["annotation"]:
            assert names[entry["subset"]].setdefault(int(step["id"]), step["label"]) == step["label"]
    assert sorted(names["testing"]) == list(range(1, len(names["testing"]) + 1))
    assert set(names["testing"]) & set(names["training"])


def test_crosstask_annotations_name_steps_of_their_task(world, root):
    folder = root / "crosstask"
    tasks = {}
    for name in ("tasks_primary.txt", "tasks_related.txt"):
        for record in (folder / name).read_text().strip().split("\n\n"):
            number, _, _, n_steps, steps = record.strip().split("\n")
            tasks[number] = steps.split(",")
            assert len(tasks[number]) == int(n_steps)
    for task, video, _ in read_csv(folder / "videos.csv"):
        segments = world.video("labelled", int(video[-5:])).segments
        rows = read_csv(folder / "annotations" / f"{task}_{video}.csv")
        assert [tasks[task][int(step) - 1] for step, _, _ in rows] == [
            segment.step.label() for segment in segments
        ]
        assert [(float(start), float(end)) for _, start, end in rows] == [
            (s.start_s, s.end_s) for s in segments
        ]
        assert (root / "videos" / f"{video}.npy").exists()


def test_crosstask_validation_videos_belong_to_primary_tasks(root):
    primary = (root / "crosstask" / "tasks_primary.txt").read_text()
    rows = read_csv(root / "crosstask" / "videos_val.csv")
    assert (
        rows
        and all(task in primary for task, _, _ in rows)
        and rows != read_csv(root / "crosstask" / "videos.csv")
    )


def test_didemo_moments_lie_in_pieces_of_thirty_seconds(root):
    records = load(root / "didemo" / "test_data.json")
    assert len(records) > 10
    for record in records:
        assert np.load(root / "didemo" / "feat" / f"{record['video']}.npy").shape == (30, 512)
        assert len(record["times"]) == 4 and all(0 <= first <= last <= 5 for first, last in record["times"])


def test_didemo_moments_show_the_described_step(world, root):
    hits = []
    for record in load(root / "didemo" / "test_data.json"):
        video = world.video("test", int(record["video"][-5:]))
        step = video.segments[world.captions(video).index(record["description"])].step
        likeness = (
            np.load(root / "didemo" / "feat" / f"{record['video']}.npy").astype(float)
            @ world.looks.objects[step.obj]
        )
        first, last = record["times"][0]
        inside = np.zeros(30, dtype=bool)
        inside[5 * first : 5 * (last + 1)] = True
        hits.append(likeness[inside].mean() > likeness[~inside].mean())
    assert np.mean(hits) > 0.9


def test_multiple_choice_answers_are_the_captions_of_their_clips(world, root):
    header, *rows = read_csv(root / "msrvtt" / "MSR_MC_test.csv", delimiter="\t")
    assert header == ["vid_key", "a1", "a2", "a3", "a4", "a5", "answer"]
    for (key, *choices, answer), clip in zip(rows, world.gallery(), strict=True):
        assert len(set(choices)) == 5 and choices[int(answer)] == world.captions(clip.video)[clip.index]
    assert {row[-1] for row in rows} == set("01234") and rows[0][0] == "msr0" and key == f"msr{len(rows) - 1}"


def test_htm_align_times_are_those_of_the_shown_step(world, root):
    annotations = load(root / "how2-align" / "htm_align.json")
    for video in world.videos("labelled"):
        spans = {(s.start_s, s.end_s) for s in video.segments}
        for alignable, start, end, text in annotations[video.id]:
            assert text and (alignable == 0 or (start, end) in spans)
    flags = [entry[0] for entries in annotations.values() for entry in entries]
    assert 0.5 < np.mean(flags) < 0.9


@pytest.mark.parametrize(
    "name, paths",
    [
        ("MSRVTTMetaProcessor", {"test_path": "msrvtt/MSRVTT_JSFUSION_test.csv", "vfeat_dir": "msrvtt/feat"}),
        ("MSRVTTQAMetaProcessor", {"test_path": "msrvtt/MSR_MC_test.csv", "vfeat_dir": "msrvtt/feat"}),
        (
            "YoucookMetaProcessor",
            {
                "test_path": "youcook/youcook_val.pkl",
                "trainval_annotation": "youcook/youcookii_annotations_trainval.json",
            },
        ),
        ("COINActionSegmentationMetaProcessor", {"test_path": "coin/COIN.json"}),
        ("DiDeMoMetaProcessor", {"test_path": "didemo/test_data.json", "vfeat_dir": "didemo/feat"}),
        (
            "CrossTaskMetaProcessor",
            {
                "primary_path": "crosstask/tasks_primary.txt",
                "related_path": "crosstask/tasks_related.txt",
                "train_csv_path": "crosstask/videos.csv",
                "val_csv_path": "crosstask/videos_val.csv",
                "annotation_path": "crosstask/annotations",
            },
        ),
    ],
)
def test_the_processors_of_the_real_data_sets_list_every_item(root, name, paths):
    from mmpt.config.schema import DatasetConfig
    from mmpt.registry import META_PROCESSORS

    paths = {"vfeat_dir": "videos", **paths}
    config = DatasetConfig(
        split="test",
        n_train=2,
        bert_name=str(root / "model"),
        **{key: str(root / path) for key, path in paths.items()},
    )
    items = META_PROCESSORS.get(name)(config)
    assert len(items) > 0 and items[0] is not None


def test_downstream_names_need_no_unknown_word(world, root):
    tokenize = WordPiece.load(root / "model")
    labels = {step.label() for task in world.tasks for step in task}
    assert not any(tokenize.ids["[UNK]"] in tokenize(label) for label in labels)
