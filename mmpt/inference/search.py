"""An index of a folder of videos, and moments of it that fit sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmpt.backbones.folding import for_inference
from mmpt.backbones.s3d import S3D
from mmpt.extraction.run import videos_of
from mmpt.inference.loading import weights_sha256
from mmpt.inference.mmpt_model import MMPTModel
from mmpt.inference.moments import Moment, MomentIndex
from mmpt.neighbours.exact import ExactSearch
from mmpt.neighbours.store import MANIFEST, VectorStore


def build_index(
    folder: Path,
    model: str,
    checkpoint: str | None = None,
    videos: Path | None = None,
    s3d: Path | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> MomentIndex:
    """Encode every window of every video once.

    Args:
        folder: videos, or features <id>.npy.
        model: whatever `MMPTModel.from_pretrained` takes.
        checkpoint: weights; None: as `MMPTModel.from_pretrained` finds them.
        videos: where the videos are, when `folder` holds features.
        s3d: S3D weights, to read videos; None: the backbone of the model, where its weights usually lie.
        window: seconds per moment; None: as many as the model reads at once.
        stride: seconds between starts of moments; None: side by side.
        progress: wrapped round the ids.
        on_failure: told id and error of a file that cannot be read and is left out; None: it is raised.
    """
    found, network, origin = _opened(folder, model, checkpoint, videos, s3d)
    index = network.index(found, window, stride, progress=progress, on_failure=on_failure)
    return dataclasses.replace(index, origin=origin)


def build_store(
    folder: Path,
    out: Path,
    model: str,
    checkpoint: str | None = None,
    videos: Path | None = None,
    s3d: Path | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> tuple[VectorStore, int, int]:
    """An index that stays on disk, brought up to date: new videos come in, those that are gone go.

    Args:
        out: its folder; the others are as in `build_index`.

    Returns:
        The index, and how many videos came and went.

    Raises:
        ValueError: `out` holds an index of other weights or windows.
    """
    found, network, origin = _opened(folder, model, checkpoint, videos, s3d)
    way = {"weights": origin["weights"], "window": window, "stride": stride}
    origin |= way
    if (out / MANIFEST).is_file():
        store = VectorStore(out)
        if other := [key for key in way if store.origin.get(key) != way[key]]:
            raise ValueError(f"{out}: an index of another {other[0]}. Choose another folder, or remove it.")
        store.origin = origin
    else:
        width = network.encode_text("a").shape[-1]
        store = VectorStore.create(out, width, network.unit_vectors, origin)
    known = store.videos
    gone = known - found.keys()
    store.remove(gone)
    todo = {video: path for video, path in found.items() if video not in known}
    encode = partial(network.encode_windows, window_s=window, stride_s=stride)
    encoded = network.one_by_one(todo, encode, progress, on_failure)
    came = store.add((video, *(x.float().cpu().numpy() for x in made)) for video, made in encoded)
    return store, came, len(gone)


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
        path: a saved index, a file or a folder.
        sentences: what to look for.
        k: moments per sentence.

    Returns:
        Sentence -> its moments, best first; and video id -> video file.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it was made with other weights.
    """
    if (path / MANIFEST).is_file():
        store = VectorStore(path)
        model, exact = _model_of(path, store.origin), ExactSearch(store)
        asked = {sentence: model.encode_text(sentence, numpy=True)[0] for sentence in sentences}
        found = {sentence: exact.search(query, k).hits for sentence, query in asked.items()}
        return found, store.origin["files"]
    model, index = open_index(path)
    return {sentence: model.search(index, sentence, k) for sentence in sentences}, index.origin["files"]


def whole(name: str) -> str:
    """The whole path of a file or folder, so that it is found from other folders too; another name stays."""
    return str(Path(name).resolve()) if Path(name).exists() else str(name)


def open_index(path: Path) -> tuple[MMPTModel, MomentIndex]:
    """An index with the model that made it; `path` may be the folder that holds `index.npz`.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it was made with other weights.
    """
    path = path / "index.npz" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no index there. Write it first: mmpt search build FOLDER")
    index = MomentIndex.load(path)
    return _model_of(path, index.origin), index


def _model_of(path: Path, origin: Mapping[str, Any]) -> MMPTModel:
    """The model that made an index, as it was then."""
    model, _, _ = MMPTModel.from_pretrained(origin["model"], origin["checkpoint"], video_encoder=None)
    if weights_sha256(model.fusion) != origin["weights"]:
        came = f"{origin['model']} {origin['checkpoint'] or ''}".strip()
        raise ValueError(
            f"{path}: made with other weights than {came} has now, so scores would mean nothing. Build it "
            "again."
        )
    return model
