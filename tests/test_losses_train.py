"""Every loss with a toy file really trains through fairseq, on one process and on two; one line of YAML
exchanges it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments import training_process
from mmpt.config import load_config
from mmpt.config.fairseq_args import fairseq_args
from mmpt.demo.toy_runs import move_folders
from mmpt.launch.local import PLUGIN
from mmpt.losses import build_loss
from scripts.describe_losses import toy_files
from tests.conftest import ROOT
from tests.ports import free_port

UPDATES = 2
FILES = [ROOT / path for paths in toy_files().values() for path in paths]
TERMS = {  # what the log must name to show that it is this loss that trained
    "videoclip": "text_to_video",
    "norton": "sequence",
    "t2v": "text_to_video",
    "v2t": "video_to_text",
    "sequence": "paragraph_to_video",
    "milnce": "milnce",
    "tempclr_dtw": "qualifying_share",
    "tempclr_otam": "qualifying_share",
    "gdt": "base",
    "gdt_reversal_shift": "shift_of_rev",
    "gram": "a2d",
    "pairwise": "pairwise",
    "pmrl": "separation",
    "symile": "symile",
    "sum": "order/alignment",
    "nce": "nce",
    "mtm": "mtm",
    "mfmmlm": "mlm",
    "nlg": "nlg",
    "crosstask_tempclr": "bce",
    "fewshot": "accuracy",
    "triangle": "a2d",
    "sequences": "crop_ts_tl",
    "maps": "crop_ss_sl",
}


@pytest.fixture(scope="module")
def server(toy_world):
    """Imports fairseq once; runs are forked from it."""
    return training_process.server()


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


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("project", FILES, ids=lambda path: path.stem)
def test_the_loss_trains_through_fairseq(project, processes, server, toy_world, tmp_path):
    lines = train(server, toy_world, project, tmp_path / "run", processes)
    assert [line["num_updates"] for line in lines] == list(range(1, UPDATES + 1))
    assert all(line["loss"] == line["loss"] and line["gnorm"] > 0 for line in lines)
    assert TERMS.get(project.stem, "loss") in lines[-1]


def readme_example() -> str:
    """The YAML block of README that exchanges the loss."""
    return re.search(
        r"One line swaps the loss:\n\n```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[1]


def test_the_example_of_the_readme_gives_the_loss_that_it_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(readme_example())
    config = load_config(path)
    assert type(build_loss(config.loss)).__name__ == "TempCLRLoss"
    assert config.dataset == load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml").dataset


def test_the_example_of_the_readme_trains_on_the_embedded_data(server, toy_world, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        readme_example().replace(
            "projects/retri/norton/how2_pretrain.yaml", str(ROOT / "projects/toy/norton.yaml")
        )
    )
    line = train(server, toy_world, path, tmp_path / "run")[-1]
    assert "alignment" in line and "sequence" not in line


def test_exchanging_the_loss_class_alone_exchanges_the_loss(server, toy_world, tmp_path):
    text = (ROOT / "projects/toy/losses/gram.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("loss_cls: GRAMLoss", "loss_cls: T2VContraLoss"))
    line = train(server, toy_world, path, tmp_path / "run")[-1]
    assert "text_to_video" in line and "a2d" not in line
