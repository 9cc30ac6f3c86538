"""Videos -> one feature vector per second.

    python scripts/video_feature_extractor/extract.py videos/ data/feat/feat_mine_s3d --weights
    pretrained_models/s3d_howto100m.pth

reads a folder of videos (or a csv with a column `path`) and writes `<id>.npy`, (seconds, D) float16, and
`passport.json`, which says what they are; with `--shards 4096` it writes shards, manifest and index instead.
Run it again after a kill and it goes on. `failures.json` lists videos that could not be read, with the
reason. Several processes or machines share the list by `--rank` and `--world-size`, which torchrun or a SLURM
array sets.
"""

from __future__ import annotations

from mmpt.backbones.backbone import video_backbone
from mmpt.backbones.folding import keep_freed_memory
from mmpt.media.video import VIDEO_SUFFIXES
from mmpt_cli import extraction


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    backbones = "s3d, r2plus1d, image:<hub id or folder>, or open_clip:<architecture>/<weights>"
    parser = extraction.parser("Videos -> one feature vector per second.", "videos", backbones, "s3d")
    add = parser.add_argument
    add("--fps", type=int, help="frames per second; default: what the backbone was trained on")
    add("--size", type=int, help="pixels of the square; default: what the backbone was trained on")
    add("--reverse", action="store_true", help="the video played backwards (second view of GDT)")
    add("--decoder", default="pyav", choices=("pyav", "torchcodec"), help="(%(default)s)")
    add(
        "--threads-per-file",
        type=int,
        default=1,
        help="that decode one video; 0: one per core, for few long videos (%(default)s)",
    )
    args = parser.parse_args(argv)
    options = (
        args.fps,
        args.size,
        args.normalise,
        args.reverse,
        args.half,
        args.device,
        args.decoder,
        args.threads_per_file,
    )
    extraction.run(args, lambda: video_backbone(args.backbone, args.weights, *options), VIDEO_SUFFIXES)


if __name__ == "__main__":
    keep_freed_memory()
    main()
