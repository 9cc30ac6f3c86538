"""Checkpoints in shards: one state, whoever wrote it and whoever reads it."""

import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mmpt.checkpoints import shards
from mmpt.checkpoints.convert import convert
from mmpt.checkpoints.weights import read_file, read_stored, updates_of
from tests.two_processes import WORLD, run_on_two_ranks

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def state_of(update: int) -> dict:
    weight = torch.full((40, 5), float(update))
    moments = {0: {"exp_avg": torch.full((40, 5), update + 0.5), "step": torch.tensor(update)}}
    return {
        "model": {"mmmodel.weight": weight, "mmmodel.tied": weight, "mmmodel.mean": torch.full((3,), 7.0)},
        "last_optimizer_state": {"state": moments, "param_groups": [{"lr": 0.1}]},
        "optimizer_history": [{"num_updates": update}],
        "extra_state": {"train_iterator": {"epoch": 1}, "average": torch.tensor(2.0)},
    }


def save(path: Path, update: int, group=None) -> None:
    """As `mmpt.fairseq_plugin.saving` does it; the mean is a buffer."""
    rank, ranks = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    rest, large = shards.split(state_of(update), lambda tensor: tensor.numel() != 3)
    about = shards.write(shards.share(large, rank, ranks), path.parent / "shards" / path.stem, group)
    if rank == 0:
        torch.save(rest | {shards.KEY: about}, path)


def assert_same(found, expected) -> None:
    """Containers and tensors."""
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == expected


def write_together(rank: int, folder: Path) -> None:
    group, whole = dist.new_group(backend="gloo"), torch.save
    if rank == 1:
        torch.save = None  # what the writer calls for each tensor
    with pytest.raises(OSError, match="process 1: .*NoneType"):
        save(folder / "checkpoint_1_2.pt", 2, group)
    torch.save = whole
    save(folder / "checkpoint_1_3.pt", 3, group)


def test_two_processes_write_a_share_each_and_one_reads_the_whole(tmp_path):
    """Before it a share cannot be written, which is an error in both and leaves nothing."""
    run_on_two_ranks(write_together, tmp_path)
    files = {str(path.relative_to(tmp_path / "shards")) for path in tmp_path.rglob("shards/*/*")}
    names = (".metadata", *(f"__{rank}_0.distcp" for rank in range(WORLD)))
    assert files == {f"checkpoint_1_3/{name}" for name in names}
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint_1_3.pt"]
    found = read_stored(tmp_path / "checkpoint_1_3.pt")
    assert_same(found, state_of(3))
    assert found["model"]["mmmodel.weight"].data_ptr() == found["model"]["mmmodel.tied"].data_ptr()


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 40])
def test_every_tensor_is_in_one_share_and_shares_are_as_equal_as_the_tensors_allow(ranks):
    sizes = random.Random(ranks).choices([1, 10, 1000, 2000], k=30)
    tensors = {f"t{number}": torch.zeros(size) for number, size in enumerate(sizes)}
    found = [shards.share(tensors, rank, ranks) for rank in range(ranks)]
    assert sorted(name for one in found for name in one) == sorted(tensors)
    loads = [sum(tensor.nbytes for tensor in one.values()) for one in found]
    assert max(loads) - min(loads) <= 4 * max(sizes)


def test_a_link_beside_other_checkpoints_stands_for_the_same_shards(tmp_path):
    save(tmp_path / "checkpoint_1_3.pt", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/checkpoint_last.pt").symlink_to(tmp_path / "checkpoint_1_3.pt")
    assert_same(read_stored(tmp_path / "elsewhere/checkpoint_last.pt"), state_of(3))


def test_one_command_makes_a_single_file_of_the_weights(tmp_path):
    save(tmp_path / "checkpoint_1_3.pt", 3)
    convert(tmp_path / "checkpoint_1_3.pt", tmp_path / "single.safetensors")
    shutil.rmtree(tmp_path / "shards")
    assert read_file(tmp_path / "single.safetensors").weights["weight"].eq(3).all()


def test_a_file_that_was_moved_without_its_shards_says_so(tmp_path):
    save(tmp_path / "checkpoint_1_3.pt", 3)
    (tmp_path / "away").mkdir()
    shutil.copy(tmp_path / "checkpoint_1_3.pt", tmp_path / "away")
    with pytest.raises(ValueError, match=r"away/checkpoint_1_3.pt has its tensors in .*away/shards.*convert"):
        read_file(tmp_path / "away/checkpoint_1_3.pt")
    assert updates_of(tmp_path / "away/checkpoint_1_3.pt") == 3


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_metadata_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"refused to load posix.mkdir"):
        shards.read(tmp_path)
    assert not (tmp_path / "attacked").exists()
