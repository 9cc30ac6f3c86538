"""Feature extraction: batching across files, resuming, failures."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from mmpt.extraction.extract import Job, extract
from mmpt.media.video import VideoError
from tests.conftest import ROOT


@pytest.fixture
def jobs(tmp_path):
    """Nine "files" of 1 .. 9 clips, the fifth damaged."""
    return [Job(f"v{n}", tmp_path / f"v{n}") for n in range(1, 10)]


def read(path, damage):
    """Clips of one number each: file * 100 + position; in pieces of two."""
    n = int(path.name[1:])
    clips = np.arange(n, dtype=np.float32)[:, None] + 100 * n
    for first in range(0, n, 2):
        if n == 5 and first == 4:
            raise VideoError(f"{path}: damaged at clip 4")
        yield clips[first : first + 2]


def encode(clips):
    return torch.cat([clips, -clips], dim=1)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(1, 1), (4, 3), (100, 2)])
def test_every_file_gets_its_own_features_in_order(jobs, tmp_path, batch_size, n_threads):
    result = extract(jobs, read, encode, tmp_path / "out", batch_size, n_threads, "float32")
    assert sorted(result.done) == [f"v{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9)]
    for n in (1, 2, 3, 4, 6, 7, 8, 9):
        got = np.load(tmp_path / "out" / f"v{n}.npy")
        assert got.tolist() == [[100 * n + i, -(100 * n + i)] for i in range(n)]


def test_damaged_file_is_listed_with_its_reason_and_is_not_fatal(jobs, tmp_path):
    result = extract(jobs, read, encode, tmp_path / "out")
    assert list(result.failed) == ["v5"] and "damaged at clip 4" in result.failed["v5"]
    assert not (tmp_path / "out" / "v5.npy").exists()


def test_batches_are_full_across_files_and_the_last_is_filled_up(jobs, tmp_path):
    batches = []
    extract(
        jobs[:4],
        read,
        lambda clips: batches.append(clips) or clips,
        tmp_path / "out",
        batch_size=4,
        n_threads=1,
    )
    assert [len(batch) for batch in batches] == [4, 4, 4] and not batches[2][2:].any()


def test_features_are_stored_backwards_where_asked(jobs, tmp_path):
    extract(jobs[:4], read, encode, tmp_path / "out", dtype="float32", backwards=True)
    assert np.load(tmp_path / "out" / "v4.npy")[:, 0].tolist() == [403, 402, 401, 400]


def test_second_run_does_only_what_is_missing(jobs, tmp_path):
    extract(jobs, read, encode, tmp_path / "out")
    (tmp_path / "out" / "v7.npy").unlink()
    seen = []
    result = extract(
        jobs, read, encode, tmp_path / "out", on_file=lambda job, clips: seen.append((job.video_id, clips))
    )
    assert result.done == ["v7"] and len(result.skipped) == 7
    assert len(seen) == 9 and ("v7", 7) in seen


def test_an_error_of_the_network_is_not_hidden_as_a_damaged_file(jobs, tmp_path):
    def broken(clips):
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        extract(jobs, read, broken, tmp_path / "out")


def test_whatever_reading_a_file_raises_is_the_failure_of_that_file(jobs, tmp_path):
    def odd(path, damage):
        if path.stem == jobs[1].path.stem:
            raise ValueError("Frame does not match AudioResampler setup.")
        yield from read(path, damage)

    result = extract(jobs, odd, encode, tmp_path / "out")
    named = f"{jobs[1].path}: cannot be read (ValueError: Frame does not match AudioResampler setup.)."
    assert result.failed[jobs[1].video_id] == named
    assert len(result.done) >= len(jobs) - 2


@pytest.mark.parametrize("stop", [False, True])
def test_damage_is_kept_beside_the_features_or_ends_the_run(jobs, tmp_path, stop):
    def odd(path, damage):
        damage.concealed_s = 0.5 if path.stem == jobs[0].path.stem else 0.0
        yield from read(path, damage)

    if stop:
        with pytest.raises(VideoError, match=r"damaged \(0.5 s cannot be decoded"):
            extract(jobs, odd, encode, tmp_path / "out", stop_on_damage=True)
    else:
        result = extract(jobs, odd, encode, tmp_path / "out")
        assert {video: found.concealed_s for video, found in result.damaged.items()} == {
            jobs[0].video_id: 0.5
        }
        assert jobs[0].video_id in result.done


def test_next_file_is_read_while_the_network_runs(jobs, tmp_path):
    reading_second = threading.Event()

    def watched_read(path, damage):
        if path.name == "v2":
            reading_second.set()
        yield from read(path, damage)

    def waiting_encode(clips):
        assert reading_second.wait(timeout=10), "v2 is not read before v1 is encoded"
        return clips

    extract(jobs[:2], watched_read, waiting_encode, tmp_path / "out", batch_size=1, n_threads=1)


def test_features_that_do_not_fit_the_stored_type_are_a_failure(jobs, tmp_path):
    result = extract(jobs[:1], read, lambda clips: clips * 1e6, tmp_path / "out")
    assert "not finite as float16" in result.failed["v1"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "mmpt", "mmpt, half"])
def test_the_benchmark_of_extraction_times_files_that_were_read(way):
    options = ["--network", "means", "--videos", "1", "--seconds", "1", "--frame-size", "320", "240"]
    command = [sys.executable, str(ROOT / "benchmarks" / "extraction.py"), *options]
    said = subprocess.run(
        [*command, "--repeats", "1", "--ways", way], capture_output=True, text=True, check=True
    ).stdout
    speed = next(line for line in said.splitlines() if f"| {way} |" in line)
    assert float(speed.partition(f"| {way} |")[2].split()[0]) > 0
