"""A few updates on the synthetic data, in a process that has imported fairseq already."""

from __future__ import annotations

import json
from pathlib import Path

from experiments import training_process
from mmpt.config import load_config
from mmpt.config.fairseq_args import fairseq_args
from mmpt.demo.toy_runs import move_folders
from mmpt.launch.local import PLUGIN
from tests.conftest import ROOT
from tests.ports import free_port

UPDATES = 2


def train(server, world: Path, project: Path, folder: Path, processes: int = 1) -> list[dict]:
    """A few updates; the log lines of the first process."""
    settings = [
        *move_folders(project, {"data/toy": str(world)}),
        f"dataset.num_video_per_batch={8 // processes}",
        "fairseq.dataset.disable_validation=true",
        "fairseq.common.log_interval=1",
        f"fairseq.checkpoint.save_dir={folder}",
        "fairseq.checkpoint.restore_file=null",
        *(f"fairseq.optimization.{key}={UPDATES}" for key in ("max_update", "total_num_update")),
        "fairseq.optimization.warmup_updates=1",
        "model.init_from=null",
    ]
    if load_config(project).fairseq["dataset"]["batch_size"] > 1:  # an item is one video, not a group
        # whole batches only, which gathering over processes needs; few videos have maps
        settings.append(f"fairseq.dataset.batch_size={4 if project.stem == 'maps' else 16}")
    config = load_config(project, settings)
    words = [
        str(project),
        "--user-dir",
        str(ROOT / "mmpt"),
        *PLUGIN,
        "--distributed-world-size",
        str(processes),
        *fairseq_args(config),
    ]
    words += [word for setting in settings for word in ("--set", setting)]
    logs = [folder / f"rank{rank}.log" for rank in range(processes)]
    folder.mkdir(parents=True, exist_ok=True)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": "1",
    }
    envs = [
        {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        for rank in range(processes)
    ]
    runs = [training_process.start(server, words, log, env) for log, env in zip(logs, envs, strict=True)]
    codes = [run.wait()[0] for run in runs]
    assert codes == [0] * processes, logs[codes.index(next(code for code in codes if code))].read_text()[
        -3000:
    ]
    return [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        if '"train_inner"' in line
    ]
