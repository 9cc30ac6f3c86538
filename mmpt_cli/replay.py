"""Make any update of a run again: which items it had, what each did to the gradient.

    mmpt replay runs/retri/norton --update 31416
    mmpt replay --bisect runs/a runs/b

The update is made again from the checkpoint before it, with the run's settings and number of processes, in a
folder of its own; nothing of the run is changed. The hash of the gradient tells whether it is the same, bit
by bit. --bisect finds the first update at which two runs part. Start it in the folder in which the run was
started. Exit code: 1 where the gradient is another one, or the runs part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from mmpt_cli.options import Parser, count, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt replay", __doc__)
    p.add_argument("run", nargs="?", help="run folder (fairseq.checkpoint.save_dir)")
    p.add_argument("--update", type=count, metavar="K", help="the update to make again, from 1")
    p.add_argument("--bisect", nargs=2, metavar=("A", "B"), help="run folders: where do they part?")
    p.add_argument("--items", type=count, default=20, help="most items to list (default: %(default)s)")
    p.shared("--set", "--json", "--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Replay or bisect."""
    p = parser()
    args = p.parse_args(argv)
    if bool(args.bisect) == bool(args.run) or bool(args.run) != bool(args.update):
        p.error("give a run folder and --update K, or --bisect A B")
    speak(args.quiet)
    logging.getLogger("mmpt.lines").setLevel(logging.WARNING)  # the commands that are launched
    from mmpt import replay

    overrides = tuple(args.overrides)
    if args.bisect:
        first, second = map(replay.read_log, args.bisect)
        found = replay.bisect(first, second, overrides)
        text = json.dumps(replay.parting_as_dict(found), indent=1) if args.json else None
        print(text or replay.parting_as_text(found, args.items))
        return 1 if found.update is not None else 0
    made = replay.repeat(replay.read_log(args.run), args.update, overrides=overrides)
    print(json.dumps(replay.as_dict(made), indent=1) if args.json else replay.as_text(made, args.items))
    return 1 if made.reproduced is False else 0
