r"""CPU seconds of imports, a whole toy prediction and one update of a training, each in fresh processes.

python benchmarks/start_up.py projects/toy/test_youcook_zs.yaml --checkpoint FILE \
    --train projects/toy/norton.yaml
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measured import command_line, publish  # noqa: E402

IMPORTS = (
    "import torch",
    "import mmpt.losses",
    "import mmpt.models",
    "from transformers import AutoTokenizer",
    "from transformers import BertModel",  # what our BERT is there instead of
    # what no training with fairseq can do without
    "import fairseq_cli.train, torch; torch.optim.Adam([torch.ones(1)])",
)
ONE_UPDATE = (
    *("optimization.max_update=1", "dataset.disable_validation=true", "checkpoint.no_save=true"),
    "checkpoint.restore_file=null",
)


def cpu_seconds(words: list[str]) -> float:
    """Of a process and its children."""
    before = os.times()
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("project", nargs="?", help="test to predict; without it only imports are timed")
    parser.add_argument("--checkpoint")
    parser.add_argument("--train", help="project of which one update is made")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    commands = {f"`{line}`": [sys.executable, "-c", line] for line in IMPORTS}
    commands["`mmpt --help`"] = [sys.executable, "-m", "mmpt_cli", "--help"]
    if args.project:
        predict = [sys.executable, "-m", "mmpt_cli", "predict", args.project]
        predict += ["--checkpoint", args.checkpoint] if args.checkpoint else []
        commands["`mmpt predict` of a toy test, in all"] = predict
    if args.train:
        settings = ["model.init_from=null", *(f"fairseq.{key}" for key in ONE_UPDATE)]
        settings.append(f"fairseq.checkpoint.save_dir={tempfile.mkdtemp()}")
        commands["`mmpt train` of one update, in all"] = [
            *(sys.executable, "-m", "mmpt_cli", "train", args.train, "--cpu"),
            *(word for setting in settings for word in ("--set", setting)),
        ]
    found = {what: [cpu_seconds(words) for _ in range(args.repeats)] for what, words in commands.items()}
    rows = [[what, f"{min(times):.2f} to {max(times):.2f}"] for what, times in found.items()]
    publish(args.record, {f"Start-up, {args.repeats} runs": [["what", "CPU seconds"], *rows]}, found)


if __name__ == "__main__":
    main()
