"""predict.py end to end on toy parts: which checkpoints, which files, what is printed."""

import json
import os

import numpy as np
import pytest
import torch

from mmpt.api.evaluation import find_checkpoints, labels
from mmpt.config import load_config
from mmpt.evaluators import load_arrays
from mmpt_cli import predict


def results(tmp_path, label):
    return json.loads((tmp_path / "run" / "toy_zs" / label / "results.json").read_text())


def test_every_checkpoint_of_the_run_folder_is_evaluated_once_by_name(project, tmp_path, capsys):
    predict.main([project(), "--device", "cpu"])
    summary = json.loads((tmp_path / "run" / "toy_zs" / "results.json").read_text())
    assert list(summary["checkpoints"]) == ["checkpoint1", "checkpoint_best", "checkpoint_last"]
    assert (
        summary["best"] == "checkpoint_best"
        and summary["checkpoints"]["checkpoint_best"]["values"]["R1"] == 1
    )
    printed = capsys.readouterr().out
    best = printed.split("best results:")[1]
    assert "checkpoint_best.pt" in best and "checkpoint1.pt" not in best
    assert f"validation chose: --checkpoint {tmp_path}/run/checkpoint_best.pt" in printed


def test_one_checkpoint_alone_can_be_named(project, tmp_path):
    predict.main(
        [
            project(),
            "--checkpoint",
            str(tmp_path / "run" / "checkpoint1.pt"),
            "--output",
            str(tmp_path / "out"),
        ]
    )
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["checkpoint1"]


def test_the_report_says_what_was_evaluated(project, tmp_path):
    predict.main([project(), "--checkpoint", str(tmp_path / "run" / "checkpoint_best.pt")])
    found = results(tmp_path, "checkpoint_best")
    assert (
        found["facts"] | {"queries": 12, "gallery": 12, "duplicate captions": 0, "tie rule": "mean"}
        == found["facts"]
    )
    assert found["missing"] == {"without features": ["lost"]}
    assert found["if_missing_were_there"]["R1"] == [0, 1]  # 12 clips found, 1 of a lost video
    assert found["warnings"] == []
    assert found["checkpoint"]["missing"] == [] and len(found["checkpoint"]["sha256"]) == 64
    assert {"key": "test_path", "bytes": 7}.items() <= found["data"][0].items() and len(
        found["data"][0]["sha256"]
    ) == 64
    assert found["settings"]["predictor"] == "RetrievalPredictor"


def test_pictures_are_drawn_on_demand_and_named_in_the_page(project, tmp_path):
    pytest.importorskip("matplotlib")
    predict.main(
        [
            project("FullVideoRetrievalMetric"),
            "--checkpoint",
            str(tmp_path / "run" / "checkpoint_best.pt"),
            "--plots",
        ]
    )
    folder = tmp_path / "run" / "toy_zs" / "checkpoint_best"
    for name in ("ranks", "scores", "alignment"):
        assert (folder / f"{name}.png").is_file() and f"![{name}]({name}.png)" in (
            folder / "results.md"
        ).read_text()
    plots = results(tmp_path, "checkpoint_best")["plots"]
    assert plots == ["ranks.png", "scores.png", "alignment.png", "shift.png"]


def test_a_fine_tuned_checkpoint_is_named_and_features_of_another_rate_are_no_matter(
    project, tmp_path, capsys
):
    (tmp_path / "passport.json").write_text('{"seconds_per_feature": 1.5}')
    path = tmp_path / "tuned.pt"
    state = {"mmmodel.table": torch.eye(12)}
    extra = {"config": {"dataset": {"train_path": "data/msrvtt/train.csv"}}}
    torch.save(
        {"model": state, "cfg": None, "args": None, "optimizer_history": [{}], "extra_state": extra}, path
    )
    predict.main([project(), "--checkpoint", str(path), "--set", f"dataset.vfeat_dir={tmp_path}"])
    found = results(tmp_path, "tuned")
    assert found["checkpoint"]["training"]["data"] == {"train_path": "data/msrvtt/train.csv"}
    assert not found["warnings"]
    assert "trained on data/msrvtt/train.csv; zero-shot is a number on another" in capsys.readouterr().out


def test_layers_that_the_checkpoint_lacks_are_warned_of(project, tmp_path):
    torch.save({"model": {"mmmodel.table": torch.eye(12)}}, tmp_path / "small.pt")
    predict.main(
        [project(), "--checkpoint", str(tmp_path / "small.pt"), "--set", "model.model_cls=ToyTowersWithHead"]
    )
    (warning,) = results(tmp_path, "small")["warnings"]
    assert "lacks 1 tensors of the model (head)" in warning


def test_an_untrained_model_needs_no_checkpoint(project, tmp_path):
    predict.main([project(path="null"), "--untrained"])
    assert results(tmp_path, "untrained")["values"]["MR"] == 6.5


def test_predictions_can_be_kept_without_a_metric(project, tmp_path):
    predict.main([project(), "--checkpoint", str(tmp_path / "run" / "checkpoint_best.pt"), "--predict-only"])
    folder = tmp_path / "run" / "toy_zs" / "checkpoint_best"
    arrays = load_arrays(folder / "predictions.npz")
    assert (
        arrays["texts"][3] == "word3"
        and arrays["video_ids"][3] == "video1"
        and arrays["item_ids"][3] == "video1_3_4"
    )
    assert not (folder / "results.json").exists()


def test_full_videos_are_scored_from_their_clips(project, tmp_path):
    predict.main(
        [project("FullVideoRetrievalMetric"), "--checkpoint", str(tmp_path / "run" / "checkpoint_best.pt")]
    )
    found = results(tmp_path, "checkpoint_best")
    assert found["facts"]["gallery"] == 4 and found["values"]["OTAM-R1"] == 1
    assert found["if_missing_were_there"]["R1"] == [0, 1]


def test_all_checkpoints_failing_equally_still_names_a_best_one(project, tmp_path, capsys):
    (tmp_path / "run" / "checkpoint_best.pt").unlink()
    predict.main([project(path="null")])
    assert "best results" in capsys.readouterr().out


def test_the_report_of_a_single_checkpoint_is_printed_once(project, tmp_path, capsys):
    predict.main([project(), "--checkpoint", str(tmp_path / "run" / "checkpoint1.pt")])
    assert capsys.readouterr().out.count("all 1 tensors loaded") == 1


def test_a_misspelt_checkpoint_is_answered_by_those_that_are_there(project, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="run holds checkpoint1.pt, checkpoint_best.pt, checkpoint_last"
    ):
        predict.main([project(), "--checkpoint", str(tmp_path / "run" / "checkpoint_lst.pt")])


def test_a_missing_checkpoint_is_named_with_its_key(project):
    with pytest.raises(FileNotFoundError, match="fairseq.common_eval.path=.*absent.pt: no such file"):
        predict.main([project(path="absent.pt")])


def test_a_run_folder_without_checkpoints_is_an_error(project, tmp_path):
    config = load_config(project(path="null"), [f"eval.save_path={tmp_path}/"])
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        find_checkpoints(config, None, False)


def test_checkpoints_are_evaluated_in_the_order_of_their_updates(project, tmp_path):
    """Whatever their names and times are; weights alone, which do not say it, come first."""
    config = load_config(project(path="null"), [f"eval.save_path={tmp_path}/"])
    expected = ["weights", "1_9", "1_20", "best", "last"]
    for age, (name, updates) in enumerate(zip(expected, (None, 9, 20, 20, 100), strict=True)):
        path = tmp_path / f"checkpoint_{name}.pt"
        torch.save(
            {"model": {}} | ({"optimizer_history": [{"num_updates": updates}]} if updates else {}), path
        )
        os.utime(path, (1e9 - age, 1e9 - age))
    assert [path.stem.partition("_")[2] for path in find_checkpoints(config)] == expected


def test_checkpoints_of_one_name_in_two_folders_keep_apart(tmp_path):
    paths = [tmp_path / "a" / "checkpoint_best.pt", tmp_path / "b" / "checkpoint_best.pt"]
    assert list(labels(paths)) == ["checkpoint_best", "b_checkpoint_best"]


def test_per_query_ranks_are_saved(project, tmp_path):
    predict.main([project(), "--checkpoint", str(tmp_path / "run" / "checkpoint_best.pt")])
    with np.load(tmp_path / "run" / "toy_zs" / "checkpoint_best" / "per_query.npz") as stored:
        assert stored["ranks"].tolist() == [1.0] * 12 and stored["ids"][4] == "video1_4_5"
