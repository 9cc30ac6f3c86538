"""Checkpoint files: whole or absent, verified before they are trusted."""

import os
import random
import time
from pathlib import Path

import pytest
import torch

from mmpt.checkpoints import shards
from mmpt.checkpoints.weights import read_stored
from mmpt.fairseq_plugin import checkpoint_files


def write(folder, name, update, age=0.0):
    path = folder / name
    state = {
        "value": torch.full((1000,), float(update)),
        "optimizer_history": [{"num_updates": update}],
        "extra_state": {"train_iterator": {"epoch": 1}},
    }
    checkpoint_files.save(state, str(path))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def write_shards(folder: Path, name: str, update: int) -> Path:
    """The same in shards."""
    path, state = folder / name, {"model": {"value": torch.full((1000,), float(update))}}
    rest, large = shards.split(state, lambda tensor: True)
    about = shards.write(large, shards.new_folder(path), None)
    rest |= {"optimizer_history": [{"num_updates": update}], shards.KEY: about}
    checkpoint_files.save(rest, str(path))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_temporary(tmp_path):
    path = write(tmp_path, "checkpoint_last.pt", 1)

    class Unwritable:
        def __reduce__(self):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="Earlier checkpoints are intact"):
        checkpoint_files.save({"bad": Unwritable()}, str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_last.pt"]
    assert torch.load(path)["value"][0] == 1


def test_a_link_planted_under_the_temporary_name_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "checkpoint_1_2.pt.tmp").symlink_to(tmp_path / "victim")
    checkpoint_files.save({"model": {}}, str(tmp_path / "checkpoint_1_2.pt"))
    assert (tmp_path / "victim").read_text() == "kept"
    assert torch.load(tmp_path / "checkpoint_1_2.pt") == {"model": {}}


def test_a_copy_replaces_its_target_and_leaves_no_temporary(tmp_path):
    new, old = write(tmp_path, "checkpoint3.pt", 3), write(tmp_path, "checkpoint_last.pt", 2)
    checkpoint_files.AtomicPathManager.copy(str(new), str(old), overwrite=True)
    checkpoint_files.AtomicPathManager.copy(str(new), str(old), overwrite=True)
    assert torch.load(old)["value"][0] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint3.pt", "checkpoint_last.pt"]


def test_a_later_save_does_not_change_a_copy(tmp_path):
    new, best = write(tmp_path, "checkpoint3.pt", 3), tmp_path / "checkpoint_best.pt"
    checkpoint_files.AtomicPathManager.copy(str(new), str(best))
    write(tmp_path, "checkpoint3.pt", 4)
    assert torch.load(best)["value"][0] == 3


def test_without_checkpoints_there_is_nothing_to_resume(tmp_path):
    write(tmp_path, "checkpoint_best.pt", 1)
    assert checkpoint_files.newest_intact(tmp_path) is None


@pytest.mark.parametrize("spoil", [truncate, flip_a_byte])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, spoil, caplog):
    older, newer = write(tmp_path, "checkpoint_1_10.pt", 10), write(tmp_path, "checkpoint_1_20.pt", 20)
    last = write(tmp_path, "checkpoint_last.pt", 30)
    spoil(last)
    assert checkpoint_files.newest_intact(tmp_path) == newer
    assert "checkpoint_last.pt is " in caplog.text and "Taking the checkpoint before it." in caplog.text
    spoil(newer)
    assert checkpoint_files.newest_intact(tmp_path) == older
    best = write(tmp_path, "checkpoint_best.pt", 5)
    assert checkpoint_files.newest_intact(tmp_path) == older
    spoil(older)
    assert checkpoint_files.newest_intact(tmp_path) == best


def test_the_checkpoint_of_most_updates_counts_and_not_the_youngest_file(tmp_path):
    newer, last = write(tmp_path, "checkpoint_1_20.pt", 20, age=60), write(tmp_path, "checkpoint_last.pt", 20)
    write(tmp_path, "checkpoint_1_9.pt", 9)
    assert checkpoint_files.newest_intact(tmp_path) == last
    write(tmp_path, "checkpoint_last.pt", 10)
    assert checkpoint_files.newest_intact(tmp_path) == newer


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file of which something was lost, overwritten or turned round; mostly where zip keeps its
    directory."""
    place = rng.choice([rng.randrange(len(content)), max(0, len(content) - rng.randrange(1, 900))])
    length = min(rng.choice([1, 2, 4, 16, 64, 512]), len(content) - place)
    kind = rng.choice(["flip", "zeros", "noise", "ones", "cut", "gone", "longer"])
    new = {
        "flip": bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 : place + length],
        "zeros": bytes(length),
        "ones": b"\xff" * length,
        "noise": rng.randbytes(length),
        "cut": b"",
        "gone": b"",
        "longer": content[place : place + length] * 2,
    }[kind]
    return content[:place] + new + (b"" if kind == "cut" else content[place + length :])


def test_whatever_damages_the_newest_checkpoint_it_is_used_only_where_it_still_says_the_same(tmp_path):
    older, last = write(tmp_path, "checkpoint_1_10.pt", 10), write(tmp_path, "checkpoint_last.pt", 20)
    content = last.read_bytes()
    for seed in range(200):
        last.write_bytes(mutated(content, random.Random(seed)))
        chosen = checkpoint_files.newest_intact(tmp_path)
        assert chosen in (older, last), seed
        state = torch.load(chosen, weights_only=True)
        expected = 10 if chosen == older else 20
        assert state["optimizer_history"] == [{"num_updates": expected}], seed
        assert (state["value"] == expected).all(), seed


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("which", ["*.pt", "*/*/__0_0.distcp", "*/*/.metadata"])
def test_whatever_damages_a_checkpoint_in_shards_the_one_before_it_is_taken(tmp_path, which):
    older = write_shards(tmp_path, "checkpoint_1_10.pt", 10)
    last = write_shards(tmp_path, "checkpoint_last.pt", 20)
    (victim,) = (path for path in tmp_path.glob(which) if "last" in str(path))
    content = victim.read_bytes()
    for seed in range(40):
        victim.write_bytes(mutated(content, random.Random(seed)))
        chosen = checkpoint_files.newest_intact(tmp_path)
        assert chosen in (older, last), seed
        state, expected = read_stored(chosen), 10 if chosen == older else 20
        assert state["optimizer_history"] == [{"num_updates": expected}], seed
        assert (state["model"]["value"] == expected).all(), seed
    victim.unlink()
    assert checkpoint_files.newest_intact(tmp_path) == older


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_shards_go_when_no_checkpoint_names_them_any_more(tmp_path):
    for update in (1, 2, 3):
        write_shards(tmp_path, f"checkpoint_1_{update}.pt", update)
    best = tmp_path / "checkpoint_best.pt"
    checkpoint_files.AtomicPathManager.copy(str(tmp_path / "checkpoint_1_2.pt"), str(best))
    for update in (1, 2):
        (tmp_path / f"checkpoint_1_{update}.pt").unlink()
    checkpoint_files.remove_unused_shards(tmp_path)
    left = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert left == ["checkpoint_1_2-0", "checkpoint_1_3-0"]
    assert read_stored(best)["model"]["value"][0] == 2


def test_when_all_are_damaged_training_does_not_silently_start_afresh(tmp_path):
    truncate(write(tmp_path, "checkpoint_last.pt", 1))
    with pytest.raises(ValueError, match="all 1 checkpoints .* are damaged"):
        checkpoint_files.newest_intact(tmp_path)
