"""Checkpoint files: what is read, what is refused, what is reported."""

from __future__ import annotations

import argparse
import collections
import os
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from mmpt.checkpoints.weights import load_weights, read_file, read_state_dict, seal


class Towers(nn.Module):
    """Two towers of two tensors each."""

    def __init__(self, n_text: int = 3):
        super().__init__()
        self.video_encoder = nn.ModuleDict({"videomlp": nn.Linear(2, 3)})
        self.text_encoder = nn.ModuleDict({"pooler": nn.Linear(n_text, 3)})


class RunsCode:
    """Unpickling this would run a shell command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/mmpt_should_not_exist",)


def fairseq_file(path, state, **extra):
    """What a fairseq run writes: weights beside an argparse namespace and an omegaconf document."""
    config = OmegaConf.create({"task": {"taskconfig": "x.yaml", "sizes": [1, 2]}})
    meters = collections.defaultdict(list, {"loss": [1.0]})
    torch.save(
        {
            "args": argparse.Namespace(lr=[0.1]),
            "cfg": config,
            "model": state,
            "extra_state": {"meters": meters},
        }
        | extra,
        path,
    )
    return path


def test_fairseq_checkpoint_is_unwrapped_stripped_widened_and_freed_of_position_ids(tmp_path):
    state = {"mmmodel." + name: tensor.half() for name, tensor in Towers().state_dict().items()}
    state["mmmodel.text_encoder.embeddings.position_ids"] = torch.arange(5)[None]
    got = read_state_dict(fairseq_file(tmp_path / "checkpoint.pt", state))
    assert sorted(got) == sorted(Towers().state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in got.values())


def test_stored_configuration_needs_neither_fairseq_nor_omegaconf(tmp_path, monkeypatch):
    path = fairseq_file(tmp_path / "checkpoint.pt", {"mmmodel.w": torch.ones(1)})
    for name in [name for name in sys.modules if name.split(".")[0] in ("fairseq", "omegaconf")] + [
        "fairseq",
        "omegaconf",
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    assert list(read_state_dict(path)) == ["w"]


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}]
)
def test_plain_and_wrapped_state_dicts_are_read(tmp_path, wrap):
    torch.save(wrap({"module.a.weight": torch.ones(2)}), tmp_path / "w.pth")
    assert list(read_state_dict(tmp_path / "w.pth")) == ["a.weight"]


def test_files_of_old_torch_are_read_and_refused_alike(tmp_path):
    def save(content, name):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
        return tmp_path / name

    beside = {"args": argparse.Namespace(lr=1), "cfg": OmegaConf.create({"sizes": [1, {"a": 2}]})}
    assert list(read_state_dict(save({**beside, "model": {"w": torch.ones(1)}}, "old.pt"))) == ["w"]
    with pytest.raises(ValueError, match=r"evil\.pt would run code of (posix|nt)\.system"):
        read_state_dict(save({"model": {"w": torch.ones(1)}, "extra": RunsCode()}, "evil.pt"))
    assert not os.path.exists("/tmp/mmpt_should_not_exist")


class WarmupOf:
    """A schedule that keeps the schedule it hands over to, as training scripts write them."""

    def __init__(self, after_scheduler):
        self.after_scheduler = after_scheduler

    def state_dict(self):
        return dict(self.__dict__)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_beside_optimizer_and_schedule_objects_are_read_without_building_them(
    tmp_path, zipped, monkeypatch
):
    model = Towers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    schedule = WarmupOf(torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]))
    state = {
        "model": {f"module.{name}": value for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict() | {"whole": schedule},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(torch.optim.SGD, "__setstate__", lambda *_: pytest.fail("built"))
    got = read_state_dict(path)
    assert got.keys() == model.state_dict().keys()
    assert all(torch.equal(got[name], value) for name, value in model.state_dict().items())


def test_safetensors_are_read(tmp_path):
    save_file({"a.weight": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "w.safetensors")
    assert read_state_dict(tmp_path / "w.safetensors")["a.weight"].dtype == torch.float32


def test_file_that_would_run_code_is_refused_by_name(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "extra": RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt would run code of (posix|nt)\.system"):
        read_state_dict(tmp_path / "evil.pt")
    assert not os.path.exists("/tmp/mmpt_should_not_exist")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_truncated_file_is_named(tmp_path, name):
    whole = tmp_path / f"whole_{name}"
    save_file({"a": torch.ones(500)}, whole) if name.endswith("safetensors") else torch.save(
        {"a": torch.ones(500)}, whole
    )
    (tmp_path / name).write_bytes(whole.read_bytes()[:700])
    with pytest.raises(ValueError, match="truncated"):
        read_state_dict(tmp_path / name)


def test_absent_file_and_file_without_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        read_state_dict(tmp_path / "nowhere.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no weights.*epoch"):
        read_state_dict(tmp_path / "empty.pt")


def test_all_tensors_loaded_is_the_verdict_of_a_fitting_file(tmp_path):
    source, target = Towers(), Towers()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    report = load_weights(target, tmp_path / "w.pt")
    assert report.verdict == "all 4 tensors loaded" and not report.missing and not report.unexpected
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_tied_tensor_may_be_stored_once(tmp_path):
    model = nn.ModuleDict({"words": nn.Embedding(4, 3), "decoder": nn.Linear(3, 4, bias=False)})
    model["decoder"].weight = model["words"].weight
    torch.save({"words.weight": torch.ones(4, 3)}, tmp_path / "w.pt")
    assert load_weights(model, tmp_path / "w.pt").verdict == "all 2 tensors loaded"
    assert torch.equal(model["decoder"].weight, torch.ones(4, 3))


def test_missing_and_unexpected_tensors_are_reported_once_in_groups(tmp_path):
    state = {k: v for k, v in Towers().state_dict().items() if k.startswith("video")}
    torch.save(state | {"cls.a": torch.ones(1), "cls.b": torch.ones(1)}, tmp_path / "w.pt")
    report = load_weights(Towers(), tmp_path / "w.pt")
    assert report.missing == ["text_encoder.pooler.weight", "text_encoder.pooler.bias"]
    assert report.verdict == (
        "2 of 4 tensors loaded; missing from the file: text_encoder.pooler.* (2); not used by the model: "
        "cls.a, cls.b"
    )


def test_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(
        {"mm_encoder.weight": torch.ones(2), "video_encoder.videomlp.bias": torch.ones(3)}, tmp_path / "w.pt"
    )
    with pytest.raises(ValueError, match=r"another model: 1 of 4 .*text_encoder\.\* \(2\)"):
        load_weights(Towers(), tmp_path / "w.pt")


def test_shape_mismatch_names_tensor_and_both_shapes_and_changes_nothing(tmp_path):
    torch.save(Towers(n_text=5).state_dict(), tmp_path / "w.pt")
    model = Towers()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"text_encoder\.pooler\.weight: file \(3, 5\), model \(3, 3\)"):
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.mmmodel.", "mmmodel.module.module."]
)
def test_prefixes_of_wrappers_are_stripped_at_any_depth(tmp_path, prefix):
    torch.save({"model": {f"{prefix}a.weight": torch.ones(2)}}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a.weight"]


def test_the_report_says_which_prefixes_of_wrappers_were_stripped(tmp_path):
    model = nn.Linear(2, 2)
    state = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "w.pt")
    report = load_weights(model, tmp_path / "w.pt")
    assert report.stripped == "module._orig_mod."
    assert "'module._orig_mod.' taken off the names" in report.verdict


def test_the_prefix_that_training_writes_is_no_news(tmp_path):
    model = nn.Linear(2, 2)
    torch.save({"model": {f"mmmodel.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pt")
    assert load_weights(model, tmp_path / "w.pt").verdict == "all 2 tensors loaded"


def test_two_models_in_one_state_are_refused(tmp_path):
    torch.save({"a.weight": torch.ones(2), "module.a.weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"w\.pt: module\.a\.weight and another tensor .* are both a\.weight"
    ):
        read_state_dict(tmp_path / "w.pt")
    torch.save({"a.weight": torch.ones(2), "module.a.weight": torch.ones(2)}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a.weight"]


def test_tensors_without_names_are_no_weights(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt holds no weights"):
        read_state_dict(tmp_path / "w.pt")


def test_a_part_that_was_compiled_alone_keeps_its_name(tmp_path):
    torch.save({"a._orig_mod.b.weight": torch.ones(2)}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a.b.weight"]
    assert read_file(tmp_path / "w.pt").stripped == ""


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module", "ema"])
def test_weights_are_found_where_trainers_put_them(tmp_path, key):
    torch.save({"epoch": 3, key: {"a.weight": torch.ones(2)}}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a.weight"]


def test_what_stands_before_every_name_is_taken_off_until_the_model_fits_and_said(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = {f"model.net.{name}": value + 1 for name, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "lightning.ckpt")
    report = load_weights(model, tmp_path / "lightning.ckpt")
    assert report.stripped == "model.net." and not report.missing
    assert "'model.net.' taken off the names" in report.verdict
    assert torch.equal(model[0].weight, state["model.net.0.weight"])


def test_a_web_page_and_a_pointer_say_what_they_are(tmp_path):
    (tmp_path / "w.pt").write_text("\n<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(ValueError, match=r"w.pt is a web page, not a checkpoint"):
        read_state_dict(tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"git lfs pull"):
        read_state_dict(tmp_path / "w.safetensors")


def test_an_error_of_torch_is_passed_on_without_its_page_of_advice(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"\x80\x02garbage")
    with pytest.raises(ValueError, match="not a readable torch checkpoint") as error:
        read_state_dict(tmp_path / "w.pt")
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_single_bit_that_flipped_in_a_weight_is_found(tmp_path, name, seed):
    path = tmp_path / name
    weights = {"a": torch.arange(4096.0)}
    if name == "w.pt":
        torch.save(weights, path)
    else:
        save_file(weights, path, metadata={"format": "pt"})
        seal(path)
    assert torch.equal(read_state_dict(path)["a"], weights["a"])
    content = bytearray(path.read_bytes())
    place = content.index(weights["a"].numpy().tobytes()) + int(
        np.random.default_rng(seed).integers(4 * 4096)
    )
    content[place] ^= 1 << seed
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        read_state_dict(path)
