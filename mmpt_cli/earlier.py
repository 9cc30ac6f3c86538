"""Command lines of VideoCLIP's, VLM's and Norton's pages; each says which line it became."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from mmpt.config import ConfigError, load_config, recursive_config
from mmpt.config.load import find_project, leaves
from mmpt.config.yamlfile import read_yaml
from mmpt_cli.main import door, load
from mmpt_cli.options import Parser, count

S3D_WEIGHTS = "pretrained_models/s3d_howto100m.pth"
OTHER_TYPES = {
    "2d": "--backbone image:HUB_ID_OR_FOLDER, an image network at one frame a second",
    "3d": "--backbone image:HUB_ID_OR_FOLDER; ResNeXt-101 is not here",
    "vmz": "--backbone r2plus1d --weights FILE; R(2+1)D-18 is here, the one of 34 layers is not",
    "vae": "no other: discrete codes are not here",
}
SHARDS = "scripts/video_feature_extractor/how2/shards.yaml"
HTM_ALIGN = "projects/retri/norton/test_htm_align_zs.yaml"


def extract(argv: Sequence[str] | None = None) -> int:
    """`extract.py`: `mmpt features video`, or with --vdir the released options."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(word.split("=")[0] == "--vdir" for word in words):
        return door("features", "video")(words)
    p = Parser("extract.py", "Features of videos, with the options of the release.")
    p.add_argument("--vdir", required=True, help="folders of videos, separated by commas")
    p.add_argument("--fdir", required=True, help="folder for the features")
    p.add_argument("--type", choices=("s3d", *OTHER_TYPES), default="s3d")
    for name, default in (("hflip", 0), ("half_precision", 1), ("l2_normalize", 1)):
        p.add_argument(f"--{name}", type=int, choices=(0, 1), default=default)
    for name in ("batch_size", "num_decoding_thread"):
        p.add_argument(f"--{name}", type=count)
    for name in ("resnext101_model_path", "vmz_model_path"):
        p.add_argument(f"--{name}", help="of types that are not here")
    args = p.parse_args(words)
    if args.type != "s3d":
        p.error(f"--type {args.type}: use mmpt features video VIDEOS FEATURES {OTHER_TYPES[args.type]}")
    if args.hflip:
        p.error("--hflip 1: mirrored features are not here; leave it out")
    options = ["--weights", S3D_WEIGHTS, "--dtype", "float16" if args.half_precision else "float32"]
    options += [] if args.l2_normalize else ["--no-normalize"]
    options += ["--batch-size", str(args.batch_size)] if args.batch_size else []
    options += ["--threads", str(args.num_decoding_thread)] if args.num_decoding_thread else []
    return _each("features", [["video", folder, args.fdir, *options] for folder in args.vdir.split(",")])


def shard_feature(argv: Sequence[str] | None = None) -> int:
    """`shard_feature.py`: `mmpt shards build`; with a YAML, or none, of both splits that it names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not (len(words) == 1 and words[0].endswith((".yaml", ".yml"))):
        return door("shards", "build")(words)
    path = words[0] if words else SHARDS
    dataset = load_config(path).dataset
    lists = {"train": dataset.train_path, "valid": dataset.val_path}
    if not (dataset.vfeat_dir and dataset.target_dir and any(lists.values())):
        raise ConfigError(
            f"{path}: needs dataset.vfeat_dir (features, <id>.npy), target_dir (shards), train_path and "
            f"val_path (lists of ids), as {SHARDS} has them."
        )
    places = [(split, listed) for split, listed in lists.items() if listed]
    return _each(
        "shards",
        [
            ["build", dataset.vfeat_dir, listed, dataset.target_dir, "--split", split]
            for split, listed in places
        ],
    )


def zeroshot_align(argv: Sequence[str] | None = None) -> int:
    """`eval_zeroshot_align.py FILE`: `mmpt predict` with the processors, predictor and metric of HTM-Align,
    which the released file leaves to its script."""
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--taskconfig"]
    words = [word.removeprefix("--taskconfig=") for word in words]
    if not words or words[0].startswith("-"):
        print("usage: eval_zeroshot_align.py FILE [options of mmpt predict]", file=sys.stderr)
        return 2
    if not recursive_config(words[0]).get("predictor"):
        own = {
            name: value for name, value in read_yaml(find_project(HTM_ALIGN)).items() if name != "includes"
        }
        for key, value in leaves(own):
            words[1:1] = ["--set", f"{key}={value}"]
    return _each("predict", [words])


def _each(verb: str, lines: Sequence[Sequence[str]]) -> int:
    """Run lines of a verb, one after the other, up to a failure."""
    for words in lines:
        print(f"the same as: {shlex.join(['mmpt', verb, *words])}")
        code = load(verb)(list(words)) or 0
        if code:
            return code
    return 0
