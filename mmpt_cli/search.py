"""Find moments of a folder of videos by a sentence.

    mmpt search build FOLDER                # videos, or the folder of <id>.npy that `mmpt features` writes
    mmpt search query "pour the milk" --html page.html
    mmpt search build FOLDER                # again later: takes in what is new, and forgets what is gone
    mmpt search serve                       # a page on this machine: query, thumbnails, play
    mmpt search serve aligned               # of what `mmpt align FOLDER --out aligned` wrote

`build` encodes every window of every video once; a file that cannot be read is named and left out. `query`
prints the moments that fit best, and can write a page with thumbnails that opens in any browser. `serve`
answers until it is stopped, to this machine alone unless told otherwise by --host.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt_cli.options import Parser, count, speak

MODEL, INDEX = "projects/retri/norton/how2_pretrain.yaml", Path("runs/search")


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt search", __doc__)
    verb = p.verbs()
    path: dict[str, Any] = {"type": Path}
    build = verb("build", "encode a folder")
    add = build.add_argument
    add("folder", **path, help="videos, or features <id>.npy")
    add("--videos", **path, help="where the videos are, when the folder holds features (for thumbnails)")
    add("--model", default=MODEL, help="project file, folder of save_pretrained, or hub id (%(default)s)")
    add("--checkpoint", help="weights; default: checkpoint_best.pt of the file's run, or the folder's own")
    add("--s3d", **path, help="S3D weights, to read videos; default: where the model's config says")
    add("--window", type=count, help="seconds per moment; default: as many as the model reads at once")
    add("--stride", type=count, help="seconds between starts of moments; default: side by side")
    query = verb("query", "find moments")
    query.add_argument("sentences", nargs="+", type=_sentence, metavar="SENTENCE", help="what to look for")
    query.add_argument("-k", type=count, default=5, help="moments per sentence (default: %(default)s)")
    query.add_argument("--html", **path, metavar="PAGE", help="also write this page")
    for below in (build, query):
        below.add_argument("--index", **path, default=INDEX, help="its folder (default: %(default)s)")
    serve = verb("serve", "a page to search with")
    add = serve.add_argument
    add(
        "index",
        **path,
        nargs="?",
        default=INDEX,
        help="its folder, or one of `mmpt align` (default: %(default)s)",
    )
    add("--host", default="127.0.0.1", help="who may ask: 127.0.0.1 is this machine (default: %(default)s)")
    add("--port", type=int, default=8765, help="0: any that is free (default: %(default)s)")
    return p


def _sentence(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a sentence without words")
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Build or ask."""
    args = parser().parse_args(argv)
    speak(quiet=True)
    from mmpt_cli import search_run

    getattr(search_run, args.command)(args)


if __name__ == "__main__":
    from mmpt_cli.main import run

    sys.exit(run(main))
