"""What fairseq would do wrong, refused or repaired."""

import pickle
from argparse import Namespace
from types import ModuleType

import pytest
import torch
from fairseq.logging import progress_bar
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mmpt.checkpoints import shards
from mmpt.fairseq_plugin import patches as compat


def arguments(**changes):
    plain = {
        "cpu": True,
        "fp16": False,
        "bf16": False,
        "memory_efficient_bf16": False,
        "distributed_world_size": 1,
        "ddp_backend": "legacy_ddp",
        "wandb_project": None,
        "write_checkpoints_asynchronously": False,
    }
    return Namespace(**{**plain, **changes})


def test_many_processes_beside_a_world_size_of_one_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(
        ValueError, match="each would train a model of its own. Add --distributed-world-size 4"
    ):
        compat.check_run(arguments())


def test_shared_saves_of_a_model_that_no_process_holds_whole_are_refused():
    with pytest.raises(ValueError, match="job.sharded_saves .* use_sharded_state, or set legacy_ddp"):
        compat.check_saves(arguments(ddp_backend="fully_sharded"), True)
    assert compat.check_saves(arguments(), True) is None


@pytest.mark.parametrize("flag", ["fp16", "memory_efficient_bf16"])
def test_half_precision_that_needs_a_gpu_is_refused_with_the_key_to_change(flag):
    with pytest.raises(ValueError, match=rf"Set fairseq.common.{flag}: false.* fairseq.common.bf16: true"):
        compat.check_run(arguments(**{flag: True, "bf16": flag != "fp16"}))


def test_an_update_that_stops_at_its_gradient_names_the_term_that_was_not_finite(monkeypatch):
    def stop(*args):
        raise FloatingPointError("gradients are Nan/Inf")

    def name_it():
        raise FloatingPointError("MMContraLoss: text_to_video was not finite in update 3")

    monkeypatch.setattr(compat, "_fairseq_train_step", stop)
    for told, message in ((name_it, "text_to_video"), (lambda: None, "gradients are")):
        with pytest.raises(FloatingPointError, match=message):
            compat._train_step(Namespace(task=Namespace(mmtask=Namespace(assert_finite=told))), [])


@pytest.mark.parametrize(("words", "tpu"), [(["--bf16"], False), (["--bf16", "--tpu"], True), ([], False)])
def test_bf16_does_not_ask_for_a_tpu(monkeypatch, words, tpu):
    made = Namespace(bf16=bool(words), tpu=bool(words))  # as fairseq has it
    monkeypatch.setattr(compat, "_fairseq_parse", lambda parser, given: (made, ["--further"]))
    assert compat.parse_args_and_arch(None, words)[0].tpu is tpu


@pytest.mark.parametrize("native", [True, False])
def test_bf16_on_the_cpu_is_autocast_over_weights_that_stay_float32(monkeypatch, caplog, native):
    built = []
    monkeypatch.setattr(compat, "_fairseq_trainer_init", lambda self, cfg, task: built.append(cfg))
    monkeypatch.setattr(compat, "multiplies_natively", lambda device: native)
    cfg, task = OmegaConf.create({"common": {"cpu": True, "bf16": True}}), Namespace(autocast_to=None)
    assert compat.check_run(arguments(bf16=True)) is None
    compat._in_full_precision_on_the_cpu(None, cfg, task)
    assert task.autocast_to is torch.bfloat16 and not built[0].common.bf16 and cfg.common.bf16
    assert ("likely faster" in caplog.text) is not native


def test_a_ddp_backend_that_fails_on_cpu_is_refused_with_one_that_works():
    with pytest.raises(ValueError, match="ddp_backend: legacy_ddp"):
        compat.check_run(arguments(distributed_world_size=2, ddp_backend="pytorch_ddp"))


def test_weights_and_biases_asked_for_and_not_installed_are_refused(monkeypatch):
    for found in (None, ModuleType("wandb")):  # absent, or a folder that an earlier run left behind
        monkeypatch.setattr(progress_bar, "wandb", found)
        with pytest.raises(
            ValueError, match="wandb_project=mine asks for Weights & Biases, which is not installed"
        ):
            compat.check_run(arguments(wandb_project="mine"))


def test_a_plain_cpu_run_passes():
    assert compat.check_run(arguments()) is None


def test_ranks_come_from_torchrun_and_not_from_the_number_of_gpus(monkeypatch):
    for key, value in {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(key, value)
    cfg = OmegaConf.create(
        {
            "distributed_world_size": 3,
            "distributed_init_method": None,
            "distributed_rank": 0,
            "device_id": 0,
            "distributed_no_spawn": False,
            "distributed_backend": "nccl",
        }
    )
    compat.infer_init_method(cfg)
    assert (cfg.distributed_init_method, cfg.distributed_rank, cfg.distributed_no_spawn) == (
        "env://",
        2,
        True,
    )
    assert cfg.distributed_backend == ("nccl" if torch.cuda.is_available() else "gloo")


def test_a_world_size_that_torchrun_contradicts_is_refused(monkeypatch):
    for key, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match="torchrun started 2 processes, but --distributed-world-size says 8"):
        compat.infer_init_method(
            OmegaConf.create({"distributed_world_size": 8, "distributed_init_method": None})
        )


class Evil:
    def __reduce__(self):
        return print, ("code of a stranger runs",)


def test_a_checkpoint_that_would_run_code_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "checkpoint_last.pt"
    torch.save({"model": {}, "extra": Evil()}, path)
    with pytest.raises(
        ValueError, match=r"checkpoint_last.pt is refused: .*Unsupported global: GLOBAL print"
    ):
        compat.load_checkpoint_to_cpu(str(path))
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_alone_can_start_a_run(tmp_path, name):
    weights = {"video_encoder.weight": torch.arange(6.0).view(2, 3)}
    (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
    state = compat.load_checkpoint_to_cpu(str(tmp_path / name))
    assert torch.equal(state["model"]["video_encoder.weight"], weights["video_encoder.weight"])
    assert state["last_optimizer_state"] is None and state["extra_state"]["train_iterator"]["epoch"] == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_checkpoint_in_shards_is_read_with_its_tensors(tmp_path):
    state = {
        "args": None,
        "cfg": None,
        "model": {"weight": torch.arange(6.0)},
        "optimizer_history": [{"optimizer_name": "adam", "lr_scheduler_state": {}, "num_updates": 3}],
        "last_optimizer_state": {"state": {0: {"step": torch.tensor(3)}}},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 3}},
    }
    rest, large = shards.split(state, lambda tensor: True)
    assert large.keys() == {"model.weight", "last_optimizer_state.state.0.step"}
    about = shards.write(large, tmp_path / "shards/a", None)
    torch.save(rest | {shards.KEY: about}, tmp_path / "a.pt")
    found = compat.load_checkpoint_to_cpu(str(tmp_path / "a.pt"))
    assert torch.equal(found["model"]["weight"], torch.arange(6.0)) and shards.KEY not in found
    assert found["last_optimizer_state"]["state"][0]["step"] == 3
    assert found["optimizer_history"][0]["optimizer_name"] == "adam"


def checkpoint_settings(tmp_path, **changes):
    return OmegaConf.create(
        {
            "save_dir": str(tmp_path),
            "restore_file": "checkpoint_last.pt",
            "finetune_from_model": None,
            "reset_optimizer": False,
            "reset_lr_scheduler": False,
            "reset_meters": False,
            "reset_dataloader": False,
            **changes,
        }
    )


def test_a_named_restore_file_that_is_absent_is_an_error_and_not_a_fresh_start(tmp_path):
    with pytest.raises(FileNotFoundError, match="restore_file=nowhere.pt does not exist"):
        compat.load_checkpoint(checkpoint_settings(tmp_path, restore_file="nowhere.pt"), Namespace())


@pytest.mark.parametrize("restore", ["checkpoint_last.pt", "elsewhere/checkpoint_best.pt"])
def test_a_run_with_checkpoints_resumes_from_its_own_with_nothing_reset(tmp_path, monkeypatch, restore):
    torch.save({}, tmp_path / "checkpoint_last.pt")
    seen = {}
    monkeypatch.setattr(compat, "_fairseq_load_checkpoint", lambda cfg, trainer: seen.update(cfg))
    trainer = Namespace()
    compat.load_checkpoint(
        checkpoint_settings(tmp_path, restore_file=restore, reset_optimizer=True, reset_dataloader=True),
        trainer,
    )
    assert seen["restore_file"] == str(tmp_path / "checkpoint_last.pt")
    assert not seen["reset_optimizer"] and not seen["reset_dataloader"] and trainer.goes_on


def test_a_restore_file_inside_the_run_folder_is_taken_at_its_word(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "checkpoint_last.pt")
    torch.save({}, tmp_path / "checkpoint3.pt")
    seen = {}
    monkeypatch.setattr(compat, "_fairseq_load_checkpoint", lambda cfg, trainer: seen.update(cfg))
    trainer = Namespace()
    compat.load_checkpoint(
        checkpoint_settings(tmp_path, restore_file=str(tmp_path / "checkpoint3.pt"), reset_dataloader=True),
        trainer,
    )
    assert (
        seen["restore_file"].endswith("checkpoint3.pt") and seen["reset_dataloader"] and not trainer.goes_on
    )


def test_the_pickle_module_itself_is_never_asked_to_load_a_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="refused"):
        compat.load_checkpoint_to_cpu(str(path))
