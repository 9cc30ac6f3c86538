"""fairseq is installed without its C++ and Cython parts: nothing here may need them."""

from __future__ import annotations

import json
import subprocess
import sys

from mmpt.demo.toy_runs import move_folders, set_length
from mmpt.launch.local import LocalJob
from tests.conftest import ROOT

COMPILED = [
    "fairseq.libbase",
    "fairseq.libbleu",
    "fairseq.libnat",
    "fairseq.libnat_cuda",
    "fairseq.data.data_utils_fast",
    "fairseq.data.token_block_utils_fast",
    "fairseq.ngram_repeat_block_cuda",
    "alignment_train_cpu_binding",
    "alignment_train_cuda_binding",
]
# An absent module is one that sys.modules maps to None: importing it fails as if it were not installed.
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({COMPILED}))"
TRAIN = f"{BLOCK}; from mmpt_cli.fairseq_train import main; main()"


def test_training_validation_and_saving_import_no_compiled_part_of_fairseq(toy_world, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = [
        *move_folders("projects/toy/norton.yaml", {"data/toy": str(toy_world)}),
        *set_length(2),
        f"fairseq.checkpoint.save_dir={tmp_path}",
        "fairseq.checkpoint.restore_file=null",
        "fairseq.dataset.disable_validation=false",
        "fairseq.dataset.validate_interval_updates=2",
        "dataset.num_video_per_batch=2",
        "dataset.clip_per_video=8",
        "fairseq.common.log_interval=1",
    ]
    argv = LocalJob("projects/toy/norton.yaml", "local_single", overrides=tuple(settings)).command().argv
    command = [sys.executable, "-c", TRAIN, *argv[argv.index("mmpt_cli.fairseq_train") + 1 :]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"train_inner", "valid"} <= {line["tag"] for line in lines}
    assert (tmp_path / "checkpoint_last.pt").is_file()
