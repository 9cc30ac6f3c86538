"""What the verbs of `mmpt search` call."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tqdm import tqdm

from mmpt.backbones.folding import keep_freed_memory
from mmpt.inference.search import Moment, build_store, open_index, search
from mmpt.pages.moments import write_page
from mmpt.pages.render import clock


def build(args: argparse.Namespace) -> None:
    """Write an index."""
    keep_freed_memory()
    store, came, went = build_store(
        args.folder,
        args.index,
        args.model,
        args.checkpoint,
        args.videos,
        args.s3d,
        args.window,
        args.stride,
        progress=lambda ids: tqdm(ids, unit="video", disable=None),
        on_failure=lambda video_id, error: tqdm.write(f"left out: {video_id}: {error}"),
    )
    print(f"{args.index}: {len(store)} moments of {len(store.videos)} videos; {came} came, {went} went")


def query(args: argparse.Namespace) -> None:
    """Print, and write a page of, the moments that fit."""
    found, files = search(args.index, args.sentences, args.k)
    for sentence, moments in found.items():
        print(f"{sentence}\n{table(moments)}")
    if args.html:
        write_page(args.html, found, files)
        print(f"page: {args.html}")


def serve(args: argparse.Namespace) -> None:
    """Answer until stopped."""
    from mmpt.pages.server import ANY, LOOPBACK, Searcher, application, run

    print(f"reading {args.index} ...", flush=True)
    searcher = Searcher(*open_index(args.index))
    hosts = [] if args.host in LOOPBACK else [ANY]
    if hosts:
        print(f"warning: whoever reaches {args.host} can ask, and see the videos; there is no password")
    app = application(searcher, hosts)
    run(app, args.host, args.port, lambda url: print(f"{url}   (stop: Ctrl-C)", flush=True))


def table(moments: Sequence[Moment]) -> str:
    """Rank, score, video and times."""
    width = max(len(moment.video_id) for moment in moments)
    rows = (f"{m.score:8.3f}  {m.video_id:{width}}  {clock(m.start_s)} - {clock(m.end_s)}" for m in moments)
    return "\n".join(f"{rank:4}{row}" for rank, row in enumerate(rows, start=1))
