"""All splits of a data set, trained, tested and averaged."""

import json
from types import SimpleNamespace

import pytest

from mmpt.api import folds
from mmpt.launch.pipeline import Request
from tests.conftest import ROOT

FILE = "projects/task/ucf101_ft.yaml"


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """What is launched and evaluated; the accuracy of a test is a tenth of its fold."""
    found = []
    monkeypatch.chdir(ROOT)

    def evaluate(test, checkpoint, texts, **how):
        fold = int(next(text for text in texts if text.startswith("dataset.fold=")).split("=")[1])
        found.append((test, checkpoint, list(texts)))
        return SimpleNamespace(result=SimpleNamespace(values={"acc": fold / 10}))

    monkeypatch.setattr(folds, "launch", lambda paths, request: found.append((paths, request.overrides)) or 0)
    monkeypatch.setattr(folds, "evaluate", evaluate)
    return found


def test_each_fold_trains_in_a_folder_of_its_own_and_the_mean_is_kept(jobs, tmp_path):
    said = (f"fairseq.checkpoint.save_dir={tmp_path}/run", "dataset.train_clips=1", "fairseq.common.seed=2")
    found, out = folds.train_and_test(FILE, [1, 3], Request(overrides=said))
    assert found == {"fold 1": {"acc": 0.1}, "fold 3": {"acc": 0.3}, "mean": {"acc": pytest.approx(0.2)}}
    assert out == tmp_path / "run/folds.json" and json.loads(out.read_text()) == found
    (paths, texts), (test, checkpoint, kept) = jobs[2:]
    assert paths == [FILE] and f"fairseq.checkpoint.save_dir={tmp_path}/run/fold3" in texts
    assert (test, checkpoint) == (
        "projects/task/test_ucf101_ft.yaml",
        f"{tmp_path}/run/fold3/checkpoint_last.pt",
    )
    assert kept == ["dataset.train_clips=1", "dataset.fold=3"]


def test_a_dry_run_tests_and_writes_nothing(jobs):
    assert folds.train_and_test(FILE, [1, 2], Request(dryrun=True))[0] == {}
    assert [texts[0] for _, texts in jobs] == ["dataset.fold=1", "dataset.fold=2"]


def test_a_training_that_fails_names_its_fold(jobs, monkeypatch):
    monkeypatch.setattr(folds, "launch", lambda paths, request: 3)
    with pytest.raises(RuntimeError, match="training of fold 2 failed with exit code 3"):
        folds.train_and_test(FILE, [2], Request())
