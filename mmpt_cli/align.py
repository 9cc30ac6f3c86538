"""Find where in videos their captions are; of a folder, also a page to look at and an index to search.

    mmpt align videos/ --model MODEL --out aligned             # captions beside the videos
    mmpt align videos/ --captions subs/ --model MODEL --out aligned --export vtt eaf
    mmpt align videos/ --captions "subs/{id}/*.srt" --language en --model MODEL --out aligned
    mmpt align cooking.mp4 cooking.en.vtt --model MODEL
    mmpt align cooking.npy cooking.srt --model MODEL --out aligned.json --relaxed

A folder becomes features, an alignment of every video, an index and index.html in --out; what is there is not
done again, and a run that was stopped goes on with the same command. `mmpt search serve aligned` then
searches. Captions are any files that `mmpt captions` reads. A video may also be its features `<id>.npy`, and
a folder one of features.

Of one video, prints start and end of each caption along the cheapest path in the order of the captions, and
how much of its mass the transport plan puts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, speak


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt align", __doc__)
    add = p.add_argument
    add("video", type=Path, help="folder of videos or csv with a column path; a video file; or features")
    add("file", type=Path, nargs="?", metavar="captions", help="file of captions, of one video")
    add("--captions", metavar="PATH", help="folder, file or pattern of captions (default: beside the videos)")
    add("--language", help="take <id>.LANGUAGE.vtt where a video has several files, for instance en")
    add("--model", required=True, help="project file, folder of save_pretrained, or hub id")
    add("--checkpoint", help="weights; default: checkpoint_best.pt of the file's run")
    add("--backbone", default="auto", help="that reads videos; auto: the model's own, or s3d")
    add("--weights", type=Path, help="weights file of the backbone")
    add("--window", type=count, default=4, help="seconds per window (default: %(default)s)")
    add("--method", choices=("dtw", "otam", "calibrated", "plan"), default="dtw", help="whose spans")
    add("--relaxed", action="store_const", const="otam", dest="method", help="short for --method otam")
    add("--videos", type=Path, help="where the videos are, when the folder holds features")
    add("--export", nargs="+", default=[], metavar="KIND", help="srt vtt csv eaf label-studio fiftyone")
    p.shared("--out", help="JSON to write too; of a folder, the folder to write (default: runs/align)")
    p.shared("--device", "--quiet")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Align one video, or a folder."""
    p = parser()
    args = p.parse_args(argv)
    speak(args.quiet)
    from mmpt_cli import align_run

    if args.video.is_dir() or args.video.suffix == ".csv":
        if args.file is not None:
            p.error(f"{args.video} is many videos: give its captions as --captions {args.file}")
        align_run.folder(args)
    elif (captions := args.file or args.captions) is None:
        p.error("one video needs its file of captions")
    else:
        align_run.video(args, Path(captions))
