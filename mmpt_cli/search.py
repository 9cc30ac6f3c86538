"""Search a folder of videos by a sentence.

    python -m mmpt_cli.search build FOLDER  # videos, or the folder of <id>.npy that extract.py writes
    python -m mmpt_cli.search query "pour the milk" --html page.html

`build` encodes every window of every video once; a file that cannot be read is named and left out. `query`
prints the moments that fit best, and can write a page with thumbnails that opens in any browser.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from tqdm import tqdm

from mmpt.backbones.folding import for_inference, keep_freed_memory
from mmpt.backbones.s3d import S3D
from mmpt.extraction.run import videos_of
from mmpt.inference.moments import Moment, MomentIndex
from mmpt.models import MMPTModel
from mmpt.utils.log import short_errors
from mmpt_cli.search_page import clock, write_page

MODEL, INDEX = "projects/retri/norton/how2_pretrain.yaml", "runs/search/index.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m mmpt_cli.search", description=__doc__, formatter_class=layout
    )
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="encode a folder")
    build.set_defaults(run=_build)
    build.add_argument("folder", type=Path, help="videos, or features <id>.npy")
    build.add_argument(
        "--videos",
        type=Path,
        help="where the videos are, when the folder holds features (for the thumbnails)",
    )
    build.add_argument(
        "--model",
        default=MODEL,
        help="project YAML, folder of save_pretrained, or hub id (default: %(default)s)",
    )
    build.add_argument(
        "--checkpoint", help="weights; default: checkpoint_best.pt of the YAML's run, or the folder's own"
    )
    build.add_argument(
        "--s3d", type=Path, help="S3D weights, to read videos; default: where the model's config says"
    )
    build.add_argument(
        "--window", type=int, help="seconds per moment; default: as many as the model reads at once"
    )
    build.add_argument("--stride", type=int, help="seconds between starts of moments; default: side by side")
    query = commands.add_parser("query", help="find moments")
    query.set_defaults(run=_query)
    query.add_argument("sentences", nargs="+", type=_sentence, metavar="SENTENCE", help="what to look for")
    query.add_argument("-k", type=int, default=5, help="moments per sentence (default: %(default)s)")
    query.add_argument("--html", type=Path, metavar="PAGE", help="also write this page")
    for command in (build, query):
        command.add_argument(
            "--index", type=Path, default=INDEX, help="file of the index (default: %(default)s)"
        )
    return parser


def _sentence(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a sentence without words")
    return text


def _build(options: argparse.Namespace) -> int:
    found = videos_of(options.folder)
    features = next(iter(found.values())).suffix == ".npy"
    files = videos_of(options.videos) if features and options.videos else {} if features else found
    encoder = None if features else for_inference(S3D.from_files(options.s3d)) if options.s3d else "s3d"
    model, _, _ = MMPTModel.from_pretrained(options.model, options.checkpoint, encoder)
    index = model.index(
        found,
        options.window,
        options.stride,
        progress=lambda ids: tqdm(ids, unit="video", disable=None),
        on_failure=lambda video_id, error: tqdm.write(f"left out: {video_id}: {error}"),
    )
    origin = {
        "model": str(options.model),
        "checkpoint": options.checkpoint,
        "weights": _checksum(model.fusion),
    }
    origin["files"] = {name: str(path) for name, path in files.items()}
    dataclasses.replace(index, origin=origin).save(options.index)
    print(f"{options.index}: {len(index.vectors)} moments of {len(set(index.video_ids))} videos")
    return 0


def _query(options: argparse.Namespace) -> int:
    if not options.index.is_file():
        sys.exit(
            f"error: {options.index}: no index there. Write it first: python -m mmpt_cli.search build FOLDER"
        )
    index = MomentIndex.load(options.index)
    model, _, _ = MMPTModel.from_pretrained(
        index.origin["model"], index.origin["checkpoint"], video_encoder=None
    )
    if _checksum(model.fusion) != index.origin["weights"]:
        came = f"{index.origin['model']} {index.origin['checkpoint'] or ''}".strip()
        sys.exit(
            f"error: {options.index}: made with other weights than {came} has now, so scores would mean "
            "nothing. Build it again."
        )
    found = {sentence: model.search(index, sentence, options.k) for sentence in options.sentences}
    for sentence, moments in found.items():
        print(f"{sentence}\n{_table(moments)}")
    if options.html:
        write_page(options.html, found, index.origin["files"])
        print(f"page: {options.html}")
    return 0


def _checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _table(moments: Sequence[Moment]) -> str:
    width = max(len(moment.video_id) for moment in moments)
    rows = (f"{m.score:8.3f}  {m.video_id:{width}}  {clock(m.start_s)} - {clock(m.end_s)}" for m in moments)
    return "\n".join(f"{rank:4}{row}" for rank, row in enumerate(rows, start=1))


if __name__ == "__main__":
    short_errors()
    keep_freed_memory()
    sys.exit(main())
