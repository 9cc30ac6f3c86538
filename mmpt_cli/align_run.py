"""What `mmpt align` calls."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmpt.backbones.folding import keep_freed_memory
from mmpt.inference import MMPTModel
from mmpt.inference.align import aligned_captions
from mmpt.inference.exports import export
from mmpt.inference.own_videos import OwnVideos, make
from mmpt.pages.own_videos import write_pages
from mmpt.utils.device import choose_device
from mmpt_cli.options import progress


def folder(args: argparse.Namespace) -> None:
    """Features, alignments, index, page."""
    keep_freed_memory()
    job = OwnVideos(
        videos=args.video,
        out=Path(args.out or "runs/align"),
        model=args.model,
        checkpoint=args.checkpoint,
        captions=args.captions,
        language=args.language,
        files=args.videos,
        backbone=args.backbone,
        weights=args.weights,
        window_s=args.window,
        device=str(choose_device(args.device)),
    )
    bar = progress("video")
    made = make(job, bar)
    print(f"4/4 pages: {len(made.aligned)} videos", flush=True)
    page = write_pages(made, bar)
    if args.export:
        written = export(args.export, list(made.alignments()), made.files, made.out / "exports", args.method)
        print(f"exports: {len(written)} files in {made.out / 'exports'}")
    print(f"page:    {page}\nsearch:  mmpt search serve {made.out}")


def video(args: argparse.Namespace, captions: Path) -> None:
    """One video: a line for each caption."""
    backbone = None if args.video.suffix == ".npy" else args.backbone
    model = MMPTModel.from_pretrained(args.model, args.checkpoint, backbone, video_weights=args.weights)[0]
    found = aligned_captions(model, args.video, captions, args.window)
    rows = found.rows(args.method)
    for row in rows:
        print(f"{row['start']:8.1f} {row['end']:8.1f}  {row['mass']:4.0%}  {row['text']}")
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if args.export:
        files = {} if backbone is None else {args.video.stem: str(args.video.resolve())}
        export(args.export, [found], files, Path("."), args.method)
