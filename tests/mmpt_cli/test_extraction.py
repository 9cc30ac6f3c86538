"""Options that the extractors share."""

from __future__ import annotations

from mmpt_cli.extraction import parser


def options(*arguments):
    return parser("Videos.", "videos", "s3d", "s3d").parse_args(["videos", "features", *arguments])


def test_place_in_a_slurm_array_is_the_rank(monkeypatch):
    for name, value in {
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_ARRAY_TASK_MIN": "5",
        "SLURM_ARRAY_TASK_COUNT": "4",
    }.items():
        monkeypatch.setenv(name, value)
    assert (options().rank, options().world_size) == (2, 4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (options().rank, options().world_size) == (1, 3)
