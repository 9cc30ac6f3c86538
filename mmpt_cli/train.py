"""Launch project files: on this machine, on several, or on a SLURM cluster.

    mmpt train projects/toy/norton.yaml --device cpu --nproc 2
    mmpt train projects/retri/norton/how2_pretrain.yaml --jobtype local_small --dryrun
    mmpt train FILE --nnodes 2 --nproc 8 --rdzv-endpoint node1:29500     # the same line on both machines
    mmpt train FILE --slurm big
    mmpt train FILE --estimate --nproc 8 --card 40          # memory and operations; nothing runs

A pipeline file (one with `base_dir`) derives job files, and with --run runs its stages. Exit code: 0, that
of the first job that failed, 2 for a wrong file or argument, 85 for training that a signal stopped with its
checkpoint saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpt.launch.local import JOB_TYPES
from mmpt.launch.pipeline import Request, launch
from mmpt.launch.slurm import TABLE
from mmpt_cli.gram_options import add_gram_flags, given_flags
from mmpt_cli.options import Parser, add_machines, speak, topology_of


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt train", __doc__)
    p.add_argument("files", nargs="*", metavar="FILE", help="project files, also separated by commas")
    p.shared("--set", "--quiet")
    p.shared("--device", default=None, choices=("cpu", "auto"), help="cpu: without fp16 (default: GPUs)")
    p.add_argument("--cpu", action="store_true", help="short for --device cpu")
    p.add_argument("--jobtype", choices=JOB_TYPES, help="default: the file's task_type, else local_single")
    p.add_argument("--dryrun", action="store_true", help="show the commands; run nothing, write nothing")
    p.add_argument("--estimate", action="store_true", help="count what an update takes; train nothing")
    p.add_argument("--card", type=float, default=80.0, metavar="GIB", help="memory that --estimate is to fit")
    p.add_argument("--run", action="store_true", help="pipeline files: run their stages up to a failure")
    p.add_argument(
        "--accept-changes",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="KEY,...",
        help="go on in a run folder although these keys differ from what trained it; its history keeps them",
    )
    group = add_machines(p).add_argument
    group("--slurm", metavar="NAME", help="submit with this resource set; --jobtype slurm: the file's own")
    group(
        "--slurm-table",
        default=str(TABLE),
        metavar="FILE",
        help="resource sets (scripts/slurm/resources.yaml)",
    )
    add_gram_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Launch."""
    p = parser()
    args = p.parse_args(argv)
    if not (args.files or args.config):
        p.error("the following arguments are required: FILE")
    speak(args.quiet)
    files = [path for text in args.files for path in text.split(",") if path]
    if args.estimate:
        from mmpt_cli.train_estimate import show

        show(files, args.overrides, args.nnodes * (args.nproc or 1), args.card)
        return 0
    topology = topology_of(args)
    words = args.jobtype, args.cpu or args.device == "cpu", tuple(args.overrides), topology
    how = args.dryrun, args.run, args.accept_changes
    request = Request(*words, args.slurm, args.slurm_table, given_flags(args), *how)
    return launch(files, request)
