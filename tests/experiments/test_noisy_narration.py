"""The study of noisy narration: what is trained, what is kept, what the record proves."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from experiments import noisy_narration
from experiments.noisy_narration import STUDY, Study
from mmpt.config.yamlfile import read_yaml
from mmpt.evaluators import records
from mmpt.losses import build_loss
from tests.conftest import ROOT


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    return Study(read_yaml(STUDY), tmp_path, tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The shipped study made small, run to its end."""
    folder = tmp_path_factory.mktemp("study")
    tree = read_yaml(ROOT / STUDY)
    tree |= {"size": "tiny", "noise": ["moderate"], "seeds": [1], "start": 2, "updates": 3}
    tree["figure"] = str(folder / "figure.png")
    tree["set"]["dataset.num_video_per_batch"] = 4
    tree["tuning"] |= {"noise": "clean", "rates": [1.0e-3]}
    tree["losses"] = {name: tree["losses"][name] for name in ("VideoCLIP", "TempCLR")}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        study = Study(read_yaml(file), folder / "data", folder / "out")
        noisy_narration.perform(study)
        noisy_narration.report(study, folder / "record")
        yield study, folder


@pytest.mark.parametrize("other", [False, True])
def test_every_loss_of_the_shipped_study_can_be_built(shipped, other):
    for name in shipped.losses:
        config = shipped.config(name, shipped.noises[0], 1, other)
        assert type(build_loss(config.loss, name)).__name__ == config.loss["loss_cls"]


def test_each_ablation_takes_one_part_out_of_norton(shipped):
    def parts(name):
        loss = build_loss(shipped.config(name, shipped.noises[0], 1).loss, name)
        of = loss.sequence.config if loss.sequence else None
        return (
            loss.config.n_iters is not None,
            of is not None,
            of is not None and of.bucket_quantile is not None,
            of is not None and of.fusion_weight is not None,
        )

    assert parts("Norton") == (True, True, True, True)
    assert parts("Norton, one-hot targets") == (False, True, True, True)
    assert parts("Norton, no sequences") == (True, False, False, False)
    assert parts("Norton, no bucket") == (True, True, False, True)
    assert parts("Norton, pooled vectors") == (True, True, True, False)
    assert parts("VideoCLIP") == (False, False, False, False)


@pytest.mark.slow
def test_the_weights_midway_are_those_of_a_training_that_ends_there(tiny):
    study, _ = tiny
    config, begun = study.config("VideoCLIP", "moderate", 1), noisy_narration.start(study, "moderate", 1)
    midway = noisy_narration.train(config, 1e-3, begun, [3, 2])[1]
    (ended,) = noisy_narration.train(config, 1e-3, begun, [2])
    assert all(torch.equal(midway[name], ended[name]) for name in ended)
    assert any(not torch.equal(begun[name], ended[name]) for name in ended)


def drawn(study, name, epoch):
    config = study.config(name, "moderate", 1)
    return noisy_narration.batches(noisy_narration.build_task(config), config, epoch, 2)


@pytest.mark.slow
def test_losses_that_draw_alike_see_the_same_batches_and_none_of_their_start(tiny):
    study, _ = tiny
    start = drawn(study, "VideoCLIP", 1)
    first, second = (drawn(study, name, noisy_narration.LATER) for name in ("VideoCLIP", "TempCLR"))
    assert first is second
    assert not any(torch.equal(a["vfeats"], b["vfeats"]) for a in start for b in first)


@pytest.mark.slow
def test_the_record_holds_every_run_and_proves_its_tables(tiny):
    _, folder = tiny
    assert records.problems(folder / "record") == []
    record = json.loads((folder / "record" / records.RECORD).read_text())
    assert record["seeds"]["TempCLR"] == [1] and set(record["chosen"]) == {"VideoCLIP", "TempCLR"}
    per_query = json.loads((folder / "record" / records.PER_QUERY).read_text())
    assert len(per_query["TempCLR"]["moderate, equal time"]["OTAM, background"]) == 1
    assert (folder / "figure.svg").is_file()


@pytest.mark.slow
def test_what_is_done_is_not_done_again(tiny, capsys):
    study, _ = tiny
    capsys.readouterr()
    noisy_narration.perform(study)
    assert ".json:" not in capsys.readouterr().out
