"""The main job: embedded data, a model pre-trained by fairseq, its zero-shot numbers beside trivial models,
one picture.

    python -m mmpt.demo.main_job                            # about 8 minutes on 2 cores
    python -m mmpt.demo.main_job --seed 2 --out runs/toy_seed2
    python -m mmpt.demo.main_job --size tiny --out runs/tiny --data data/tiny --updates 20 10

Stage 1 trains with VideoCLIP's loss; stage 2 goes on from there twice, with VideoCLIP's loss and with
Norton's, for equally many updates. What is already there is not done again; a run that was stopped goes on
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from mmpt.config import Config, load_config
from mmpt.config.rundir import to_dict
from mmpt.demo.report import draw_alignment, evaluate_rows, write_report
from mmpt.demo.toy_runs import PROJECTS, claim, data_fingerprint, finish, move_folders, set_length
from mmpt.utils.log import short_errors

STAGES = {"stage 1": "videoclip", "+ VideoCLIP": "videoclip_more", "+ Norton": "norton"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="main", help="size of the embedded data: tiny, small or main")
    parser.add_argument(
        "--noise", default="moderate", help="noise of the narration: clean, moderate or heavy"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of weights, batches and dropout")
    parser.add_argument(
        "--updates",
        type=int,
        nargs=2,
        metavar=("STAGE1", "STAGE2"),
        help="updates per stage (default: as in projects/toy)",
    )
    parser.add_argument("--data", default="data/toy", help="folder of the embedded data")
    parser.add_argument("--out", default="runs/toy", help="folder of checkpoints and results")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    short_errors()
    start = time.perf_counter()
    run(
        [
            sys.executable,
            "-m",
            "mmpt_cli.make_data",
            "--out",
            args.data,
            "--size",
            args.size,
            "--noise",
            args.noise,
        ],
        "making the data",
    )
    for row, name in STAGES.items():
        train(row, name, args)
    checkpoints = {row: Path(args.out) / name / "checkpoint_last.pt" for row, name in STAGES.items()}
    print("evaluating", flush=True)
    tests = {test: configured(f"test_{test}_zs", args) for test in ("vtt", "youcook", "youcook_fullvideo")}
    training = configured(STAGES["stage 1"], args)
    rows = evaluate_rows(tests, checkpoints, training)
    picture = draw_alignment(Path(args.out) / "alignment.png", args.data, checkpoints["+ Norton"], training)
    print("\n" + write_report(rows, Path(args.out), vars(args)))
    print(f"log:     {checkpoints['+ Norton'].parent / 'train.log'}\npicture: {picture}")
    print(f"\n{time.perf_counter() - start:.0f} s in all")


def run(argv: list[str], what: str) -> None:
    """Run a step; its output is the user's.

    Raises:
        SystemExit: the step failed; it has said why.
    """
    if subprocess.run(argv, check=False).returncode:
        raise SystemExit(f"error: {what} failed: {' '.join(argv)}")


def configured(name: str, args: argparse.Namespace) -> Config:
    """A project file of `projects/toy` with this run's folders, seed and number of updates."""
    path = PROJECTS / f"{name}.yaml"
    return load_config(path, overrides(name, args))


def overrides(name: str, args: argparse.Namespace) -> list[str]:
    """`--set` texts that move a toy project file to this run's data and output folders, and set its
    length."""
    texts = move_folders(PROJECTS / f"{name}.yaml", {"data/toy": args.data, "runs/toy": args.out})
    texts.append(f"fairseq.common.seed={args.seed}")
    if args.updates and name in STAGES.values():
        texts += set_length(args.updates[0 if name == STAGES["stage 1"] else 1])
    return texts


def train(row: str, name: str, args: argparse.Namespace) -> None:
    """Train one stage unless it is done; its log goes to `train.log`, progress to the terminal."""
    folder = Path(args.out) / name
    config = configured(name, args)
    updates = config.fairseq["optimization"]["max_update"]
    settings = {"config": to_dict(config), "data": data_fingerprint(args.data)}
    if not claim(folder, settings):
        print(f"{row}: trained already ({folder})")
        return
    command = [sys.executable, "-m", "mmpt_cli.launch", str(PROJECTS / f"{name}.yaml")]
    command += ["--jobtype", "local_single"]
    for text in overrides(name, args):
        command += ["--set", text]
    show(row, updates, command, folder / "train.log")
    finish(folder, settings)


def show(row: str, updates: int, command: list[str], log_path: Path) -> None:
    """Run a training command: everything into its log, one changing line on the terminal.

    Raises:
        SystemExit: the command failed; shows the end of its log.
    """
    with (
        open(log_path, "a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job,
    ):
        for line in job.stdout:
            log.write(line)
            log.flush()
            if "| train_inner |" in line:
                values = json.loads(line.split("| train_inner |")[1])
                state = (
                    f"{row}: update {values['num_updates']}/{updates}, loss {values['loss']}, "
                    f"{values['clips_per_s']} clips/s"
                )
                print(
                    f"\r{state:<78}" if sys.stdout.isatty() else state,
                    end="" if sys.stdout.isatty() else "\n",
                    flush=True,
                )
    if sys.stdout.isatty():
        print()
    if job.returncode:
        end = log_path.read_text().splitlines()[-15:]
        raise SystemExit(
            "\n".join([*end, f"error: training stopped with exit code {job.returncode}. Its log: {log_path}"])
        )


if __name__ == "__main__":
    main()
