"""Audio tracks -> one feature vector per second.

    python scripts/audio_feature_extractor/extract.py videos/ data/feat/feat_mine_audio --weights
    pretrained_models/gdt_K400.pth

reads a folder of videos or audio files (or a csv with a column `path`) and writes `<id>.npy`, (seconds, D)
float16, and `passport.json`; shards, resuming, `failures.json` and several processes as in the extractor for
video.
"""

from __future__ import annotations

from mmpt.backbones.backbone import audio_backbone
from mmpt.backbones.folding import keep_freed_memory
from mmpt.extraction.run import AUDIO_SUFFIXES
from mmpt_cli import extraction


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    backbones = (
        "resnet9 (GDT, STiCA: its checkpoint, or the audio network alone), or audio:<hub id or "
        "folder> (AST, CLAP)"
    )
    parser = extraction.parser(
        "Audio tracks -> one feature vector per second.", "videos or audio files", backbones, "resnet9"
    )
    parser.add_argument(
        "--filters",
        type=int,
        default=40,
        choices=(40, 257),
        help="mel filters that resnet9 was trained on (%(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        help="seconds that each feature hears; default: 1 for resnet9, 10 for AST and CLAP",
    )
    args = parser.parse_args(argv)
    options = args.filters, args.window, args.normalise, args.half, args.device
    extraction.run(args, lambda: audio_backbone(args.backbone, args.weights, *options), AUDIO_SUFFIXES)


if __name__ == "__main__":
    keep_freed_memory()
    main()
