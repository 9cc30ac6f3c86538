"""Find where in a video each of its captions is.

    mmpt align cooking.mp4 cooking.en.vtt --model projects/retri/norton/how2_pretrain.yaml
    mmpt align cooking.npy cooking.srt --model MODEL_FOLDER --out aligned.json --relaxed

The video is a file, or its features `<id>.npy`; captions are any file that `mmpt captions` reads. Prints
start and end of each caption along the cheapest path in the order of the captions, and how much of its mass
the transport plan puts there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt align", __doc__)
    p.add_argument("video", type=Path, help="video file, or its features")
    p.add_argument("captions", type=Path, help="file of captions")
    p.add_argument("--model", required=True, help="project file, folder of save_pretrained, or hub id")
    p.add_argument("--checkpoint", help="weights; default: checkpoint_best.pt of the file's run")
    p.add_argument("--backbone", default="s3d", help="that reads a video file (default: %(default)s)")
    p.add_argument("--weights", type=Path, help="weights file of the backbone")
    p.add_argument("--window", type=count, default=4, help="seconds per window (default: %(default)s)")
    p.add_argument("--relaxed", action="store_true", help="the first and last captions may be left out")
    p.shared("--out", help="JSON to write too")
    p.shared("--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Align; print a line for each caption."""
    args = parser().parse_args(argv)
    speak(args.quiet)
    from mmpt.inference import MMPTModel
    from mmpt.inference.align import aligned_captions

    backbone = None if args.video.suffix == ".npy" else args.backbone
    model = MMPTModel.from_pretrained(args.model, args.checkpoint, backbone, video_weights=args.weights)[0]
    rows = aligned_captions(model, args.video, args.captions, args.window, args.relaxed)
    for row in rows:
        print(f"{row['start']:8.1f} {row['end']:8.1f}  {row['mass']:4.0%}  {row['text']}")
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
