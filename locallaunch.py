#!/usr/bin/env python3
"""Launch project files on this machine.

    python locallaunch.py projects/retri/norton/how2_pretrain.yaml --jobtype local_small --dryrun

A job file becomes one command (`mmpt_cli/localjob.py`). A pipeline file (one with `base_dir`) derives job files from templates, and
with `--run` runs its stages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.config import ConfigError, load_config, merge, recursive_config
from mmpt.config.build import build_config
from mmpt.config.yamlfile import write_yaml
from mmpt_cli.localjob import JOB_TYPES, LocalJob


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
            raise ConfigError(f"{path}: project_dir is missing: a pipeline (base_dir: {self.config.base_dir}) writes its files there.")

    def derive(self, dryrun: bool) -> None:
        """Write the job files of every task group; with `dryrun` only say which."""
        for name, group in (self.config.task_group or {}).items():
            if not group.get("task_list"):
                print(f"[warning] {name} has no task_list specified.")
        for template, target, tree in list(self._derived()):
            print(f"saving {target}")
            if not dryrun:
                header = f"{template} as changed by {self.path}, which writes this file. Run: python locallaunch.py {target}"
                write_yaml(target, tree, header)

    def stages(self) -> Iterator[str]:
        """The files of run_task, one after the other."""
        for stage in self.config.run_task or []:
            for name in stage if isinstance(stage, list) else [stage]:
                path = Path("projects") / self.config.project_dir / name
                if path.is_file():
                    yield str(path)
                else:
                    print(f"[warning] run_task names {path}, which no task_group writes: skipped.")

    def _derived(self) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
        """Template, file to write and its content, for every file of every group."""
        base_dir, project_dir = self.config.base_dir, self.config.project_dir
        for group in (self.config.task_group or {}).values():
            changes = {key: value for key, value in group.items() if key != "task_list"}
            for name in group.get("task_list") or []:
                template, target = Path("projects") / base_dir / name, Path("projects") / project_dir / name
                tree = rewrite_dirs(merge(recursive_config(template), changes), f"runs/{base_dir}", f"runs/{project_dir}")
                build_config(tree, f"{template} as changed by {self.path}")
                yield template, target, tree


def rewrite_dirs(tree: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """`old` -> `new` in every text of nested maps that starts with `old`; lists stay."""

    def rewrite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return rewrite_dirs(value, old, new)
        return value.replace(old, new) if isinstance(value, str) and value.startswith(old) else value

    return {key: rewrite(value) for key, value in tree.items()}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description="Launch project files on this machine.")
    parser.add_argument("yamls", help="project files, separated by commas")
    parser.add_argument("--jobtype", choices=JOB_TYPES, help="default: task_type of the file, else local_single")
    parser.add_argument("--dryrun", action="store_true", help="show the commands; run nothing, write nothing")
    parser.add_argument("--cpu", action="store_true", help="train or predict on the CPU, in float32")
    parser.add_argument("--run", action="store_true", help="pipeline files: run the stages of run_task, stopping at the first failure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace one value of the file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, that of the first command that failed, or 2 for a wrong file or argument."""
    args = parse_args(argv)
    try:
        pipelines = [Pipeline(path) for path in args.yamls.split(",") if path]
        for pipeline in pipelines:
            paths = [pipeline.path]
            if pipeline.derives:
                if args.overrides and not args.run:
                    raise ConfigError(f"{pipeline.path}: --set changes jobs, and without --run a pipeline starts none. Add --run.")
                pipeline.derive(args.dryrun)
                paths = pipeline.stages() if args.run else []
            for path in paths:
                code = LocalJob(path, args.jobtype, args.cpu, tuple(args.overrides)).launch(args.dryrun)
                if code:
                    return code
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
