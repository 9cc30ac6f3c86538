"""Checkpoint files: what is read, what is refused, what is reported."""

from __future__ import annotations

import argparse
import collections
import os
import sys

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from mmpt.checkpoints.weights import load_weights, read_state_dict


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

    assert list(
        read_state_dict(save({"args": argparse.Namespace(lr=1), "model": {"w": torch.ones(1)}}, "old.pt"))
    ) == ["w"]
    with pytest.raises(ValueError, match=r"evil\.pt would run code of (posix|nt)\.system"):
        read_state_dict(save({"model": {"w": torch.ones(1)}, "extra": RunsCode()}, "evil.pt"))
    assert not os.path.exists("/tmp/mmpt_should_not_exist")


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
