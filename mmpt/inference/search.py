"""An index of a folder of videos, and moments of it that fit sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from mmpt.backbones.folding import for_inference
from mmpt.backbones.s3d import S3D
from mmpt.extraction.run import videos_of
from mmpt.inference.loading import weights_sha256
from mmpt.inference.mmpt_model import MMPTModel, Video
from mmpt.neighbours.exact import ExactSearch, Moment
from mmpt.neighbours.store import MANIFEST, VectorStore

Track = Callable[[Iterable], Iterable]
FEW = 32  # segments of an index that is not rewritten


def build_store(
    folder: Path,
    out: Path,
    model: str,
    checkpoint: str | None = None,
    videos: Path | None = None,
    s3d: Path | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Track = iter,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> tuple[VectorStore, int, int]:
    """An index of the windows of a folder, brought up to date as by `updated`.

    Args:
        folder: videos, or features <id>.npy.
        out: folder of the index.
        model: whatever `MMPTModel.from_pretrained` takes.
        checkpoint: weights; None: as `MMPTModel.from_pretrained` finds them.
        videos: where the videos are, when `folder` holds features.
        s3d: S3D weights, to read videos; None: the backbone of the model, where its weights usually lie.
        window: seconds per moment; None: as many as the model reads at once.
        stride: seconds between starts of moments; None: side by side.
        progress: wrapped round the ids.
        on_failure: told id and error of a file that cannot be read and is left out; None: it is raised.

    Returns:
        The index, and how many videos came and went.

    Raises:
        ValueError: `out` holds an index of other weights or windows.
    """
    found, network, origin = _opened(folder, model, checkpoint, videos, s3d)
    origin |= {"window": window, "stride": stride}
    if other := differs(out, origin):
        raise ValueError(f"{out}: an index of another {other}. Choose another folder, or remove it.")
    return updated(out, network, found, origin, progress, on_failure)


def differs(out: Path, origin: Mapping[str, Any]) -> str | None:
    """In what an index that is there was made in another way; None: in nothing, or there is none."""
    if not (out / MANIFEST).is_file():
        return None
    known = VectorStore(out).origin
    return next((key for key in ("weights", "window", "stride") if known.get(key) != origin[key]), None)


def updated(
    out: Path,
    network: MMPTModel,
    videos: Mapping[str, Video],
    origin: Mapping[str, Any],
    progress: Track = iter,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> tuple[VectorStore, int, int]:
    """An index with the windows of some videos: what is new or changed is encoded, what is gone goes.

    Args:
        out: its folder; made in the same way, or without an index.
        network: encodes.
        videos: id -> video.
        origin: where it comes from: model, checkpoint, weights, window, stride, files.
        progress, on_failure: as in `build_store`.

    Returns:
        The index, and how many videos came and went.

    Raises:
        ValueError: none of the videos can be used.
    """
    versions = {video: _version(source) for video, source in videos.items()}
    if (out / MANIFEST).is_file():
        store = VectorStore(out)
    else:
        width = network.encode_text("a").shape[-1]
        store = VectorStore.create(out, width, network.unit_vectors, origin)
    known, read = store.videos, store.origin.get("versions", {})
    kept = {video for video in known & versions.keys() if read.get(video) == versions[video]}
    # first, so that a run that ends early does not leave an old video under a new version
    store.remove(known - kept)
    made = {"made": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    store.describe({**origin, **made, "versions": versions})
    encode = partial(network.encode_windows, window_s=origin["window"], stride_s=origin["stride"])
    todo = {video: source for video, source in videos.items() if video not in kept}
    encoded = network.one_by_one(todo, encode, progress, on_failure)
    came = store.add((video, *(x.float().cpu().numpy() for x in made)) for video, made in encoded)
    if not store.videos:
        raise ValueError(f"{out}: no usable videos among {len(videos)}.")
    if len(store.segments) > FEW:
        store.compact()
    return store, came, len(known - versions.keys())


def _version(video: Video) -> list[int] | None:
    if not isinstance(video, (str, Path)):
        return None
    about = Path(video).stat()
    return [about.st_size, about.st_mtime_ns]


def _opened(
    folder: Path, model: str, checkpoint: str | None, videos: Path | None, s3d: Path | None
) -> tuple[dict[str, Path], MMPTModel, dict[str, Any]]:
    """What there is to encode, the model that does it, and what an index keeps of both."""
    found = videos_of(folder)
    features = next(iter(found.values())).suffix == ".npy"
    files = videos_of(videos) if features and videos else {} if features else found
    encoder = None if features else for_inference(S3D.from_files(s3d)) if s3d else "auto"
    network, _, _ = MMPTModel.from_pretrained(model, checkpoint, encoder)
    origin = {
        "model": whole(model),
        "checkpoint": checkpoint and whole(checkpoint),
        "weights": weights_sha256(network.fusion),
        "files": {name: str(path) for name, path in files.items()},
    }
    return found, network, origin


def search(
    path: Path, sentences: Sequence[str], k: int = 5
) -> tuple[dict[str, list[Moment]], dict[str, str]]:
    """The moments that fit sentences best.

    Args:
        path: as in `open_index`.
        sentences: what to look for.
        k: moments per sentence.

    Returns:
        Sentence -> its moments, best first; and video id -> video file.
    """
    model, exact = open_index(path)
    asked = {sentence: model.encode_text(sentence, numpy=True)[0] for sentence in sentences}
    found = {sentence: exact.search(query, k).hits for sentence, query in asked.items()}
    return found, exact.store.origin["files"]


def whole(name: str) -> str:
    """The whole path of a file or folder, so that it is found from other folders too; another name stays."""
    return str(Path(name).resolve()) if Path(name).exists() else str(name)


def open_index(path: Path) -> tuple[MMPTModel, ExactSearch]:
    """An index with the model that made it, as it was then.

    Args:
        path: folder of an index, or one that `mmpt align` wrote.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it was made with other weights.
    """
    place = next((place for place in (path, path / "index") if (place / MANIFEST).is_file()), None)
    if place is None:
        raise FileNotFoundError(
            f"{path}: no index there. Write it first: mmpt search build FOLDER --index {path}"
        )
    store = VectorStore(place)
    origin = store.origin
    model, _, _ = MMPTModel.from_pretrained(origin["model"], origin["checkpoint"], video_encoder=None)
    if weights_sha256(model.fusion) != origin["weights"]:
        came = f"{origin['model']} {origin['checkpoint'] or ''}".strip()
        raise ValueError(
            f"{place}: made with other weights than {came} has now, so scores would mean nothing. Build it "
            "again."
        )
    return model, ExactSearch(store)
