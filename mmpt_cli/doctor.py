"""Is this machine fit to train? Every finding with its cure.

    mmpt doctor
    mmpt doctor projects/retri/norton/how2_pretrain.yaml --nproc 8
    mmpt doctor projects/toy/norton.yaml --nproc 2 --device cpu
    mmpt doctor --fix fairseq
    mmpt doctor --nproc 8 --nnodes 2 --rdzv-endpoint node1:29500     # the same line on both machines

Looks at Python and the packages, GPUs, shared memory, disk and open files, at the data that project files
name, and lets the processes of this machine, or of several, talk to each other for five seconds. Exit code 1
when something would keep a job from running.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from mmpt_cli.options import Parser, count, endpoint, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt doctor", __doc__)
    add = p.add_argument
    add("projects", nargs="*", metavar="FILE", help="project files whose data to look for")
    p.shared(
        "--nproc", type=int, help="processes that talk to each other (default: one per GPU, or 2; 0: none)"
    )
    add("--nnodes", type=count, default=1, metavar="N", help="machines; the same line on each of them")
    add("--rdzv-endpoint", type=endpoint, metavar="HOST:PORT", help="where the machines meet")
    add("--seconds", type=float, default=5.0, help="for how long (default: %(default)s)")
    p.shared("--device", choices=("cpu", "auto"), help="cpu: leave GPUs alone")
    add("--cpu", action="store_true", help="short for --device cpu")
    add("--fix", choices=("fairseq",), help="install it into this environment, and look again")
    p.shared("--json", "--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; 1 when one is an error."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    if args.fix:
        from mmpt.launch.install_fairseq import install_fairseq

        install_fairseq()
    from mmpt.launch.doctor import findings
    from mmpt.launch.local import visible_gpus
    from mmpt.launch.torchrun import Topology

    cpu = args.cpu or args.device == "cpu"
    ranks = args.nproc if args.nproc is not None else (0 if cpu else len(visible_gpus())) or 2
    found, counts = [], {"ok": 0, "warning": 0, "error": 0}
    topology = Topology(args.nnodes, ranks, args.rdzv_endpoint, "mmpt_doctor")
    for finding in findings(args.projects, topology, args.seconds, cpu):
        found.append(finding)
        counts[finding.level] += 1
        if not args.json and not (args.quiet and finding.level == "ok"):
            cure = f"\n{'':8} cure: {finding.cure}" * bool(finding.cure)
            print(f"{finding.level:8} {finding.text}{cure}", flush=True)
    if args.json:
        print(json.dumps([finding._asdict() for finding in found], indent=1))
    else:
        print(f"\n{counts['error']} errors, {counts['warning']} warnings")
    return 1 if counts["error"] else 0


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
