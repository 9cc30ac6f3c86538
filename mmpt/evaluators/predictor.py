"""Runs a model over a test loader and collects what a metric reads.

Letters: B items in a batch, T text columns, D width, W windows, N captions of one video.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.ops.distributed import all_gather_items, rank, world_size
from mmpt.ops.windows import merge_windows
from mmpt.registry import PREDICTORS
from mmpt.utils.shardedtensor import load_npz

if TYPE_CHECKING:
    from mmpt.config import Config

Arrays = dict[str, Any]


class Predictor(ABC):
    """A loop over batches; sub-classes say what one batch gives, and what comes before and behind the loop.

    Args:
        config: the project file.
        tokenizer: turns caption ids back into words for the report; None: captions stay ids.
    """

    def __init__(self, config: Config, tokenizer: Any = None):
        self.config = config
        self.tokenizer = tokenizer

    def __call__(
        self,
        loader: Iterable[Mapping[str, Any]],
        model: nn.Module,
        device: torch.device | str | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> Arrays:
        """Arrays of the whole test set, on the CPU; the same on every rank.

        Args:
            loader: batches as the data set collates them; those of this rank where they are `DealtOut`.
            model: put into evaluation mode and onto `device`.
            device: None: where the model is.
            progress: wraps the loader, to show how far it is.

        Raises:
            ValueError: the loader is empty.
        """
        device = torch.device(device) if device is not None else next(model.parameters()).device
        dataset = getattr(loader, "dataset", None)
        model.to(device).eval()
        with torch.inference_mode():
            self.begin(dataset, model, device)
            parts = [_on_cpu(self.predict(_to_device(batch, device), model)) for batch in progress(loader)]
        if isinstance(getattr(loader, "batch_sampler", None), DealtOut):
            parts = all_gather_items(parts)
        if not parts:
            raise ValueError(
                f"{type(self).__name__}: the test set is empty; look at dataset.test_path and at the ids "
                "left out."
            )
        arrays = {name: _join([part[name] for part in parts]) for name in parts[0]}
        return self.finish(arrays, dataset, model)

    def begin(self, dataset: Any, model: nn.Module, device: torch.device) -> None:  # noqa: B027  a hook
        """Called before the first batch."""

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        """What the metric reads, of the joined arrays; gradients can be computed here."""
        return arrays

    @abstractmethod
    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        """Outputs of one batch: tensors are joined along their first axis, lists appended."""

    def texts(self, caps: Tensor) -> list[str]:
        """Captions (..., T) as words, special tokens left out."""
        rows = caps.reshape(caps.shape[:-1].numel(), caps.shape[-1]).tolist()  # of no word, too
        if self.tokenizer is None:
            return [" ".join(map(str, row)) for row in rows]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)


def _to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def _on_cpu(part: Arrays) -> Arrays:
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in part.items()}


class DealtOut(list[list[int]]):
    """Batches of item indices: those of one process, dealt out to the ranks in turns."""

    def __init__(self, n_items: int, batch_size: int):
        batches = (range(i, min(i + batch_size, n_items)) for i in range(0, n_items, batch_size))
        super().__init__(itertools.islice(map(list, batches), rank(), None, world_size()))


def _join(values: list) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values).numpy()
    return [item for value in values for item in value]


def check_finite(scores: Tensor, items: Iterable[Any]) -> Tensor:
    """The scores, refused where they hold NaN or infinity: an argmax would turn those into a confident
    answer.

    Raises:
        FloatingPointError: names the items of the batch.
    """
    if not scores.isfinite().all():
        names = ", ".join(map(item_name, items))
        raise FloatingPointError(
            f"non-finite scores in the batch of {names}; look at its features and at the checkpoint."
        )
    return scores


def item_name(video_id: Any) -> str:
    """`("abc", 3, 10)` -> `abc_3_10`."""
    return "_".join(map(str, video_id)) if isinstance(video_id, tuple | list) else str(video_id)


def video_name(video_id: Any) -> str:
    """The video that an item is cut from: the first element of (video, start, end), or the id itself."""
    return str(video_id[0]) if isinstance(video_id, tuple | list) else str(video_id)


@PREDICTORS.register()
class RetrievalPredictor(Predictor):
    """Pooled vectors of captions and clips, (items, D) each; the score matrix is never formed here.

    `item_ids` name the clips, `video_ids` the videos that they are cut from.
    """

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        outputs = model(**batch)
        return {
            "pooled_text": outputs["pooled_text"].float(),
            "pooled_video": outputs["pooled_video"].float(),
            "item_ids": [item_name(video_id) for video_id in batch["video_id"]],
            "video_ids": [video_name(video_id) for video_id in batch["video_id"]],
            "texts": self.texts(batch["caps"]),
        }


def text_vectors(names: Iterable[str], dataset: Any, model: nn.Module, device: torch.device) -> Tensor:
    """(C, D) of C names, tokenised and packed by the data set's own parts."""
    caps, cmasks = dataset.aligner.pack([dataset.text_processor.tokenize(name) for name in names])
    return model.forward_text(caps.to(device), cmasks.to(device)).pooled.float()


class WindowPredictor(Predictor):
    """Base of predictors over windows of one long video."""

    def merge(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Windows -> (T, ...), averaged where they overlap."""
        dataset = self.config.dataset
        rows = merge_windows(
            rows, int(batch["video_len"]), dataset.sliding_window, dataset.sliding_window_size
        ).cpu()
        return check_finite(rows, batch["video_id"])


def save_arrays(path, arrays: Arrays) -> None:
    """Write a predictor's arrays to one `.npz` without pickled objects; a list of arrays becomes `name/0`,
    `name/1`, ..."""
    flat: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            flat |= {f"{name}/{i}": item for i, item in enumerate(value)}
        else:
            flat[name] = np.asarray(value)
    np.savez_compressed(path, **flat)


def load_arrays(path) -> Arrays:
    """What `save_arrays` wrote; lists of words and numbers come back as arrays."""
    arrays: Arrays = {}
    try:
        stored = load_npz(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Predict again.") from error
    for key, value in stored.items():
        name, separator, _ = key.rpartition("/")
        if separator:
            arrays.setdefault(name, []).append(value)
        else:
            arrays[key] = value
    return arrays
