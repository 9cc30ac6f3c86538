import json

import numpy as np
import pytest

from mmpt.config import DatasetConfig
from mmpt.processors import ModalityMetaProcessor, ModalityVideoProcessor
from mmpt.utils.shardedtensor import read_manifest
from mmpt_cli.modalities import main


@pytest.fixture
def annotation(tmp_path):
    """Items v0 .. v3; sound of v0 and v2 alone, speech in v1 alone."""
    rows = [{"video_id": f"v{i}", "caption": "a", "subtitle": "b" if i == 1 else ""} for i in range(4)]
    path = tmp_path / "anno.json"
    path.write_text(json.dumps(rows))
    for folder, names in (("video", range(4)), ("audio", (0, 2))):
        (tmp_path / folder).mkdir()
        for i in names:
            np.save(tmp_path / folder / f"v{i}.npy", np.full((5 + i, 3), i, np.float16))
    return path


def project(tmp_path, annotation, **modalities):
    path = tmp_path / "project.yaml"
    path.write_text(json.dumps({"dataset": {"train_path": str(annotation), "modalities": modalities}}))
    return str(path)


def test_check_lists_the_ids_that_lack_each_modality(tmp_path, annotation, capsys):
    streams = {name: {"path": str(tmp_path / name), "width": 3} for name in ("video", "audio")}
    config = project(tmp_path, annotation, **streams, subtitle={})
    assert main(["check", config, "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "train": {"video": [], "audio": ["v1", "v3"], "subtitle": ["v0", "v2", "v3"]}
    }
    assert "audio: 2 missing (50.0%): v1, v3" in capsys.readouterr().out
    assert main(["check", config, "--strict"]) == 1


def test_check_says_what_is_absent_everywhere(tmp_path, annotation, capsys):
    (tmp_path / "depth").mkdir()
    main(["check", project(tmp_path, annotation, depth={"path": str(tmp_path / "depth")})])
    assert "depth: 4 missing (100.0%): v0, v1, v2, v3; ABSENT EVERYWHERE" in capsys.readouterr().out


def test_folders_become_shards_that_read_the_same(tmp_path, annotation):
    out = tmp_path / "shards"
    words = [f"--from={name}={tmp_path / name}" for name in ("video", "audio")]
    main(
        [
            "shards",
            str(annotation),
            "--split",
            "train",
            "--out",
            str(out),
            "--per-shard",
            "3",
            "--rate",
            "audio=2",
            *words,
        ]
    )
    modalities = {name: {"path": str(out / name), "width": 3} for name in ("video", "audio")}
    config = DatasetConfig(train_path=str(annotation), on_missing="mask", modalities=modalities)
    read, items = ModalityVideoProcessor(config), ModalityMetaProcessor(config).data
    for i, item in enumerate(items):
        feature = read(item)
        np.testing.assert_array_equal(feature["video"], np.full((5 + i, 3), i))
        assert (feature["audio"] is not None) == (i in (0, 2))
    assert read_manifest(out / "audio")["train_0"]["passport"] == {"seconds_per_feature": 0.5}


def test_a_folder_of_other_ids_is_refused(tmp_path, annotation):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="none of the 4 ids, e.g. v0.npy"):
        main(
            [
                "shards",
                str(annotation),
                "--split",
                "train",
                "--out",
                str(tmp_path / "o"),
                "--from",
                f"audio={tmp_path / 'empty'}",
            ]
        )


@pytest.mark.parametrize(
    "text, match", [("audio=fast", "a number above 0"), ("depth=2", "a modality of --from .video.")]
)
def test_a_rate_that_makes_no_sense_is_refused(text, match, tmp_path, annotation):
    with pytest.raises(ValueError, match=match):
        words = ["--from", f"video={tmp_path / 'video'}", "--rate", text.replace("audio", "video")]
        main(["shards", str(annotation), "--split", "train", "--out", str(tmp_path / "o"), *words])


def test_an_annotation_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.json: no such annotation"):
        main(["check", project(tmp_path, tmp_path / "gone.json", subtitle={})])


def test_maps_and_stored_versions_become_shards_that_read_the_same(tmp_path, annotation):
    (tmp_path / "maps").mkdir()
    for i in range(4):
        for k in range(2):
            np.save(
                tmp_path / "maps" / f"v{i}_aug{k}.npy",
                np.random.default_rng(10 * i + k).random((5 + i, 2, 3, 4)).astype(np.float16),
            )
    entry = {"path": str(tmp_path / "maps"), "width": 4, "map": [2, 3], "versions": 2}
    words = ["--from", f"maps={tmp_path / 'maps'}", "--versions", "2", "--per-shard", "3"]
    main(["shards", str(annotation), "--split", "train", "--out", str(tmp_path / "shards"), *words])
    found = []
    for path in (entry["path"], str(tmp_path / "shards" / "maps")):
        config = DatasetConfig(
            train_path=str(annotation), on_missing="drop", modalities={"maps": {**entry, "path": path}}
        )
        found.append(
            [ModalityVideoProcessor(config)(item)["maps"] for item in ModalityMetaProcessor(config).data]
        )
    for files, shards in zip(*found, strict=True):
        assert files.shape[1:] == (2, 3, 8)
        np.testing.assert_array_equal(files, shards)
