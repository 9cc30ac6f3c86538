"""fairseq really trains: one process and two, saved, killed and resumed."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from mmpt.api.training import Run
from mmpt.replay import read_log, repeat
from tests.conftest import ROOT
from tests.fairseq_plugin.runs import UPDATES, assert_same_weights, command, launch, logged, stored, weights

IN_HALF = "fairseq.common.bf16=true", "fairseq.optimization.max_update=3"


@pytest.fixture(scope="module")
def quiet(toy_world, tmp_path_factory):
    """A run that nothing disturbs: its folder and its output."""
    run = tmp_path_factory.mktemp("quiet")
    test = run / "zero_shot.yaml"
    test.write_text(
        f"includes: {ROOT}/projects/toy/test_vtt_zs.yaml\ndataset:\n  bert_name: {toy_world}/model\n"
        f"  test_path: {toy_world}/msrvtt/MSRVTT_JSFUSION_test.csv\n  vfeat_dir: {toy_world}/msrvtt/feat\n"
    )
    validation = (
        f"eval.valid_project={test}",
        "fairseq.dataset.disable_validation=false",
        "fairseq.checkpoint.best_checkpoint_metric=zero_shot_R1",
        "fairseq.checkpoint.maximize_best_checkpoint_metric=true",
        "fairseq.common.tensorboard_logdir=board",
    )
    return run, launch(command(toy_world, run, *validation))


@pytest.fixture(scope="module")
def quiet_pair(toy_world, tmp_path_factory):
    """The same on two processes, negatives of both joined."""
    run = tmp_path_factory.mktemp("pair")
    return run, launch(command(toy_world, run, "loss.global_negatives=true", jobtype="local_small"))


def test_the_log_names_each_loss_term_and_what_data_loading_costs(quiet):
    values = logged(quiet[1])
    assert len(values) == UPDATES
    for name in (
        "loss",
        "text_to_video",
        "video_to_text",
        "sequence",
        "uncaptioned",
        "clips_per_s",
        "data_wait",
        "peak_gib",
    ):
        assert name in values[-1], values[-1]
    assert 0 <= float(values[-1]["data_wait"]) <= 1 and 0.1 < float(values[-1]["peak_gib"]) < 100
    assert "mfu" not in values[-1]  # of a CPU no rate is published


def test_metrics_are_also_a_file_of_json_lines(quiet):
    lines = [json.loads(line) for line in (quiet[0] / "metrics.jsonl").read_text().splitlines()]
    inner = [line for line in lines if line["tag"] == "train_inner"]
    assert [line["update"] for line in inner] == list(range(1, UPDATES + 1))
    printed = logged(quiet[1])
    assert inner[3]["loss"] == pytest.approx(float(printed[3]["loss"]), abs=1e-3)


def test_tensorboard_gets_loss_terms_zero_shot_numbers_and_a_transport_plan_each_validation(quiet):
    pytest.importorskip("matplotlib")
    written = {
        path.parent.name: path.read_bytes() for path in (quiet[0] / "board_0").rglob("events.out.tfevents.*")
    }
    assert (
        b"text_to_video" in written["train_inner"]
        and b"sequence" in written["train"]
        and b"zero_shot/R1" in written["valid"]
        and written["valid"].count(b"transport_plan/val") == UPDATES
    )


def test_validation_runs_a_zero_shot_test_and_picks_the_best_checkpoint_by_it(quiet):
    lines = [json.loads(line) for line in (quiet[0] / "metrics.jsonl").read_text().splitlines()]
    values = [line["zero_shot_R1"] for line in lines if line["tag"] == "valid"]
    assert values and all(0 <= value <= 1 for value in values)
    best = stored(Run(quiet[0]).best_checkpoint)
    assert best["extra_state"]["val_loss"] == pytest.approx(max(values))


def test_training_moves_the_weights_and_keeps_the_published_names(quiet, toy_world):
    last = weights(quiet[0])
    assert (
        "video_encoder.videomlp.linear1.weight" in last
        and "text_encoder.embeddings.word_embeddings.weight" in last
    )
    raw = stored(quiet[0] / "checkpoint_last.pt")
    assert all(name.startswith("mmmodel.") for name in raw["model"])
    assert raw["optimizer_history"][-1]["num_updates"] == UPDATES
    biases = [last[name] for name in last if name.endswith("LayerNorm.bias")]  # zero at the start
    assert biases and all(bias.abs().max() > 0 for bias in biases)


def test_a_run_killed_by_sigkill_and_started_again_ends_bit_identical(quiet, toy_world, tmp_path):
    run = tmp_path / "killed"
    words = command(toy_world, run)
    job = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoint_1_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    updates = [int(path.stem.split("_")[-1]) for path in run.glob("checkpoint_1_*.pt")]
    assert updates and max(updates) < UPDATES, "killed too late to mean anything"
    output = launch(words)
    assert (
        f"epoch 1 @ {max(updates)} updates" in output or f"epoch 1 @ {max(updates) - 1} updates" in output
    ), "did not resume"
    assert_same_weights(weights(run), weights(quiet[0]))


@pytest.fixture(scope="module")
def quiet_half(toy_world, tmp_path_factory):
    """Three updates in bfloat16."""
    run = tmp_path_factory.mktemp("half")
    return run, launch(command(toy_world, run, *IN_HALF))


def test_a_run_in_bfloat16_on_the_cpu_keeps_float32_weights(quiet, quiet_half):
    assert "products in bfloat16 by autocast" in quiet_half[1]
    floats = [value for value in weights(quiet_half[0]).values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    losses = [[float(line["loss"]) for line in logged(output)[:3]] for _, output in (quiet, quiet_half)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.slow
def test_a_run_in_bfloat16_on_the_cpu_goes_on_bit_identical(quiet_half, toy_world, tmp_path):
    run = tmp_path / "stopped"
    launch(command(toy_world, run, *IN_HALF, "fairseq.optimization.max_update=1"))
    assert "@ 1 updates" in launch(command(toy_world, run, *IN_HALF))
    assert_same_weights(weights(run), weights(quiet_half[0]))


@pytest.mark.slow
def test_a_run_with_compiled_towers_goes_on_without_compiling_and_the_other_way_round(
    quiet, toy_world, tmp_path
):
    run = tmp_path / "run"
    launch(command(toy_world, run, "model.compile=true", "fairseq.optimization.max_update=2"))
    assert weights(run).keys() == weights(quiet[0]).keys()
    assert "@ 2 updates" in launch(command(toy_world, run, "fairseq.optimization.max_update=3"))
    assert "@ 3 updates" in launch(
        command(toy_world, run, "model.compile=true", "fairseq.optimization.max_update=4")
    )


def test_two_processes_train_one_model(quiet_pair):
    _run, output = quiet_pair
    assert "training on 2 devices" in output
    assert len(logged(output)) == UPDATES


def test_two_processes_stopped_in_an_epoch_resume_bit_identical(quiet_pair, toy_world, tmp_path):
    run = tmp_path / "stopped"
    launch(
        command(
            toy_world,
            run,
            "loss.global_negatives=true",
            "fairseq.optimization.max_update=3",
            jobtype="local_small",
        )
    )
    output = launch(command(toy_world, run, "loss.global_negatives=true", jobtype="local_small"))
    assert "epoch 1 @ 3 updates" in output
    assert_same_weights(weights(run), weights(quiet_pair[0]))


def test_an_update_made_again_has_the_gradient_that_the_run_logged(quiet):
    log = read_log(quiet[0])
    assert list(log.hashes) == [5]
    made = repeat(log, 5)
    assert made.reproduced and sorted(made.hashes) == [1, 2, 3, 4, 5] and len(set(made.hashes.values())) == 5
    (batch,) = made.batches
    assert batch["loss"] == pytest.approx(log.lines[5]["loss"], abs=1e-4)
    assert len({item["video"] for item in batch["items"]}) == 8
    assert all(item["norm"] > 0 for item in batch["items"])


@pytest.mark.slow
def test_an_update_of_two_processes_is_made_again_by_two(quiet_pair):
    made = repeat(read_log(quiet_pair[0]), 5)
    assert made.reproduced and [batch["rank"] for batch in made.batches] == [0, 1]
