"""Launch project files: on this machine, on several, or on a SLURM cluster.

    python locallaunch.py projects/retri/norton/how2_pretrain.yaml --jobtype local_small --dryrun
    python locallaunch.py projects/toy/norton.yaml --cpu --nproc-per-node 2
    python locallaunch.py FILE --nnodes 2 --nproc-per-node 8 --rdzv-endpoint node1:29500  # the same line on
        both machines
    python locallaunch.py FILE --slurm big

A job file becomes one command (`mmpt/launch/local.py`) or one sbatch file (`mmpt/launch/slurm.py`). A
pipeline file (one with `base_dir`) derives job files from templates, and with `--run` runs its stages
(`mmpt/launch/pipeline.py`). Exit code: 0, that of the first job that failed, 2 for a wrong file or argument,
85 for training that a signal stopped with its checkpoint saved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt.config import ConfigError, load_config, merge, recursive_config
from mmpt.config.build import build_config
from mmpt.config.load import pipeline_of, rewrite_dirs
from mmpt.config.yamlfile import write_yaml
from mmpt.launch.gram_flags import add_flags, given_flags, overrides
from mmpt.launch.local import JOB_TYPES, PROCESSES, LocalJob
from mmpt.launch.pipeline import run_stages, submit_stages
from mmpt.launch.slurm import TABLE, SlurmJob
from mmpt.launch.torchrun import Layout


class Pipeline:
    """A project file and the jobs it stands for: itself, or the files it derives.

    Args:
        path: a job file or a pipeline file.
    """

    def __init__(self, path: str):
        if not path.endswith((".yaml", ".yml")):
            raise ConfigError(f"{path}: expected a .yaml file. Start Python programs directly: python {path}")
        self.path = path
        self.config = load_config(path)
        self.derives = self.config.base_dir is not None
        if self.derives and not self.config.project_dir:
            raise ConfigError(
                f"{path}: project_dir is missing: a pipeline (base_dir: {self.config.base_dir}) writes "
                "its files there."
            )

    def derive(self, dryrun: bool) -> None:
        """Write the job files of every task group; with `dryrun` only say which."""
        for name, group in (self.config.task_group or {}).items():
            if not group.get("task_list"):
                print(f"[warning] {name} has no task_list specified.")
        for template, target, tree in list(self._derived()):
            print(f"saving {target}")
            if not dryrun:
                header = (
                    f"{template} as changed by {self.path}, which writes this file. Run: python "
                    f"locallaunch.py {target}"
                )
                write_yaml(target, tree, header)

    def stages(self) -> Iterator[list[str]]:
        """The files of run_task; those of one list run side by side."""
        for stage in self.config.run_task or []:
            paths = [
                Path("projects") / self.config.project_dir / name
                for name in (stage if isinstance(stage, list) else [stage])
            ]
            for path in paths:
                if not path.is_file() and not pipeline_of(path):
                    print(f"[warning] run_task names {path}, which no task_group writes: skipped.")
            yield [str(path) for path in paths if path.is_file() or pipeline_of(path)]

    def _derived(self) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
        """Template, file to write and its content, for every file of every group."""
        base_dir, project_dir = self.config.base_dir, self.config.project_dir
        for group in (self.config.task_group or {}).values():
            changes = {key: value for key, value in group.items() if key != "task_list"}
            for name in group.get("task_list") or []:
                template, target = Path("projects") / base_dir / name, Path("projects") / project_dir / name
                tree = rewrite_dirs(
                    merge(recursive_config(template), changes), f"runs/{base_dir}", f"runs/{project_dir}"
                )
                build_config(tree, f"{template} as changed by {self.path}")
                yield template, target, tree


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("yamls", help="project files, separated by commas")
    parser.add_argument(
        "--jobtype", choices=JOB_TYPES, help="default: task_type of the file, else local_single"
    )
    parser.add_argument("--dryrun", action="store_true", help="show the commands; run nothing, write nothing")
    parser.add_argument("--cpu", action="store_true", help="train or predict on the CPU, in float32")
    parser.add_argument(
        "--run",
        action="store_true",
        help="pipeline files: run the stages of run_task, stopping at the first failure",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="replace one value of the file",
    )
    group = parser.add_argument_group("processes and machines")
    group.add_argument(
        "--nproc-per-node",
        type=_count,
        metavar="N",
        help="processes on each machine, one GPU each (default: by job type)",
    )
    group.add_argument(
        "--nnodes", type=_count, default=1, metavar="N", help="machines; start the same line on each of them"
    )
    group.add_argument(
        "--rdzv-endpoint",
        type=_endpoint,
        metavar="HOST:PORT",
        help="where the machines meet: one of them and a free port",
    )
    group.add_argument(
        "--rdzv-id",
        default="mmpt",
        metavar="ID",
        help="keeps jobs with the same endpoint apart (default: %(default)s)",
    )
    group.add_argument(
        "--node-rank",
        type=int,
        metavar="K",
        help="number of this machine, 0 at the endpoint (default: as they arrive)",
    )
    slurm = parser.add_argument_group("SLURM")
    slurm.add_argument(
        "--slurm",
        metavar="NAME",
        help="submit, with this resource set; --jobtype slurm takes the file's slurm_config",
    )
    slurm.add_argument(
        "--slurm-table",
        default=str(TABLE),
        metavar="FILE",
        help="resource sets (default: scripts/slurm/resources.yaml)",
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    if args.slurm and args.jobtype in (None, "slurm"):
        args.jobtype = "slurm"
    elif args.slurm:
        parser.error(f"--slurm {args.slurm} and --jobtype {args.jobtype} say two things; leave one out.")
    if args.jobtype == "slurm" and (args.nnodes > 1 or args.nproc_per_node or args.rdzv_endpoint):
        parser.error(
            f"processes and machines of a SLURM job stand in {args.slurm_table}; choose a set with --slurm."
        )
    return args


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def _endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code as above."""
    args = parse_args(argv)
    try:
        layout = Layout(args.nnodes, args.nproc_per_node, args.rdzv_endpoint, args.rdzv_id, args.node_rank)
        for pipeline in [Pipeline(path) for path in args.yamls.split(",") if path]:
            code = launch(pipeline, args, layout)
            if code:
                return code
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def launch(pipeline: Pipeline, args: argparse.Namespace, layout: Layout) -> int:
    """Run or submit a job file; derive a pipeline's files and, with --run, run or submit its stages."""

    on_cluster, given = args.jobtype == "slurm", given_flags(args)

    def job(path: str) -> LocalJob:
        plain = LocalJob(path, args.jobtype, args.cpu, tuple(args.overrides), layout)
        if not given:
            return plain
        if on_cluster and "train_batch_size" in given:
            raise ConfigError(
                "--train_batch_size counts all processes, which SLURM's table decides: --set "
                "fairseq.dataset.batch_size."
            )
        processes = (
            layout.world_size
            if layout.per_node
            else layout.nodes * PROCESSES.get(args.jobtype or plain.config.task_type, 1)
        )
        flags = overrides(given, plain.config, plain.is_prediction, processes)
        return replace(plain, overrides=(*flags, *args.overrides))

    if not pipeline.derives:
        if on_cluster:
            SlurmJob(job(pipeline.path), args.slurm, args.slurm_table).launch(args.dryrun)
            return 0
        return job(pipeline.path).launch(args.dryrun)
    if args.overrides and not args.run:
        raise ConfigError(
            f"{pipeline.path}: --set changes jobs, and without --run a pipeline starts none. Add --run."
        )
    pipeline.derive(args.dryrun)
    stages = ([job(path) for path in paths] for paths in (pipeline.stages() if args.run else ()))
    if on_cluster:
        submit_stages(stages, args.slurm, args.slurm_table, args.dryrun)
        return 0
    return run_stages(stages, args.dryrun)


if __name__ == "__main__":
    sys.exit(main())
