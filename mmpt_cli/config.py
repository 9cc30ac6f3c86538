"""Print a project file with its includes merged, and where each value comes from.

    mmpt config projects/retri/norton/how2_pretrain.yaml
    mmpt config projects/toy/norton.yaml --set dataset.max_len=48
    mmpt config projects/toy/norton.yaml --key loss

Values that no file sets are the defaults of the classes that read them, and are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmpt_cli.options import Parser


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt config", __doc__)
    p.add_argument("file", metavar="FILE", help="project file")
    p.add_argument("--key", metavar="KEY", help="this section or value only, e.g. dataset or loss.beta")
    p.shared("--set")
    p.shared("--json", help="print JSON: {key: {value, from}}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print it."""
    args = parser().parse_args(argv)
    from mmpt.config.load import with_origins

    found = {
        key: entry
        for key, entry in with_origins(args.file, args.overrides).items()
        if args.key is None or f"{key}.".startswith(f"{args.key}.")
    }
    if args.json:
        print(json.dumps({key: {"value": value, "from": file} for key, (value, file) in found.items()}))
        return 0
    rows = [(f"{key}: {json.dumps(value)}", file) for key, (value, file) in found.items()]
    width = min(70, max((len(text) for text, _ in rows), default=0))
    print("\n".join(f"{text:<{width}}  # {file}" for text, file in rows))
    return 0
