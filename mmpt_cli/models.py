"""Models and backbones by name: what is known, where it is published, and how it comes here.

    mmpt models list
    mmpt models show norton
    mmpt models get s3d                             # resumes, and verifies where a checksum is known
    mmpt models add kitchen runs/kitchen/model      # a folder of save_pretrained, or of transformers
    mmpt models add mine runs/mine/checkpoint_best.pt --project mine.yaml

A name can then stand wherever a model is asked for: `mmpt search build my_videos --model kitchen`. What is
added stands in pretrained_models/models.yaml of this folder, or in the file that MMPT_MODELS names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmpt_cli.options import Parser


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt models", __doc__)
    verb = p.verbs()
    listed = verb("list", "a line for each")
    listed.add_argument("word", nargs="?", default="", help="only lines with this word")
    show = verb("show", "all that is known of one")
    show.add_argument("name")
    for below in (listed, show):
        below.shared("--json")
    get = verb("get", "fetch what is missing of one, or say what to fetch by hand")
    get.add_argument("name")
    add = verb("add", "give a name to weights that are here, or to a hub id")
    add.add_argument("name")
    add.add_argument("weights", help="checkpoint, folder of save_pretrained or of transformers, or hub id")
    add.add_argument("--project", metavar="FILE", help="project file that reads a checkpoint")
    add.add_argument("--backbone", help="whose features it reads, such as s3d")
    add.add_argument("--about", default="", help="one line")
    add.add_argument("--trained-on", default="", help="data")
    add.add_argument("--licence", default="yours", help="default: %(default)s")
    add.add_argument("--replace", action="store_true", help="another one of this name")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; 1 where nothing is found or could be fetched."""
    args = parser().parse_args(argv)
    from mmpt_cli import models_run

    try:
        return getattr(models_run, args.command)(args)
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
