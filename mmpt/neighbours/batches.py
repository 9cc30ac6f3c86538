"""Retrieval-augmented batches: encode every training video, then group near neighbours (VideoCLIP, section
3.3, arXiv 2109.14084)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mmpt.config import Config, required
from mmpt.datasets import MMDataset, build_dataset
from mmpt.neighbours.pool import VideoVectorPool
from mmpt.ops.distributed import rank, world_size
from mmpt.registry import RETRIEVERS, VECTOR_POOLS
from mmpt.utils.files import atomic_write
from mmpt.utils.text import read_json

logger = logging.getLogger(__name__)


class RetrievalBatches:
    """Composes the groups of one epoch, and keeps them on disk for a job that comes back.

    Args:
        config: the project file; `num_cands`, `vectorpool_cls`, `retriever_cls`, `retri_*` are read.
        folder: where the groups of each epoch are kept.
        seed: with the epoch, seeds every draw.
    """

    def __init__(self, config: Config, folder: Path, seed: int):
        self.config, self.folder, self.seed = config, folder, seed
        self.fingerprint: str | None = None
        # every video once, in the same clips-per-video form as training
        dataset = dataclasses.replace(
            config.dataset,
            meta_processor="ShardedHow2MetaProcessor",
            video_processor="ShardedVideoProcessor",
            text_processor="ShardedTextProcessor",
            aligner="VariedLenAligner",
        )
        self.dataset = build_dataset(dataclasses.replace(config, dataset=dataset), "train")
        self.dataset.seed = seed

    def compose(self, epoch: int, model: nn.Module, expected: str | None = None) -> list[list[str]]:
        """The groups of video ids of `epoch`, the same on every process.

        Args:
            epoch: whose batches.
            model: encodes the videos as it is now.
            expected: fingerprint of the groups a resumed run was in the middle of; they are read back, since
                the model has moved on.

        Raises:
            FileNotFoundError: the groups of the interrupted epoch are gone or of another run.
        """
        path = self.folder / f"epoch{epoch}.json"
        # the first process decides for all: others may see the folder late, or not at all
        stored, self.fingerprint = _of_first_rank((_read(path), expected or self._fingerprint(epoch, model)))
        if stored is not None and stored["fingerprint"] == self.fingerprint:
            logger.info("epoch %d: batches of near neighbours read back from %s", epoch, path)
            return stored["groups"]
        if expected is not None:
            raise FileNotFoundError(
                f"the checkpoint stands in the middle of epoch {epoch}, whose batches {path} are missing "
                "or of another run. "
                "Put the file back, or start the epoch anew: a new save_dir, that checkpoint as "
                "restore_file, reset_dataloader: true."
            )
        groups = self._compose(epoch, model)
        if rank() == 0:
            with atomic_write(path, "w") as file:
                json.dump({"fingerprint": self.fingerprint, "groups": groups}, file)
        return groups

    def _compose(self, epoch: int, model: nn.Module) -> list[list[str]]:
        config = self.config
        retriever = RETRIEVERS.get(config.retriever_cls or "VectorRetriever", "retriever_cls")(
            metric=config.retri_metric,
            index=config.retri_index,
            centroids=config.centroids,
            examples_per_cent_to_train=config.examples_per_cent_to_train,
            nprobe=config.retri_nprobe,
        )
        pool = VECTOR_POOLS.get(config.vectorpool_cls or "VideoVectorPool", "vectorpool_cls")(retriever)
        start = time.perf_counter()
        self.dataset.set_epoch(epoch)
        share = Subset(self.dataset, range(rank(), len(self.dataset), world_size()))
        encode(share, self.dataset, model, pool, config)
        pool.finalise()
        seconds = time.perf_counter() - start
        groups = self._groups(epoch, pool)
        reached = len({video for group in groups for video in group})
        logger.info(
            "epoch %d: %d batches of near neighbours reach %d of %d videos (%.0f %%); %d processes "
            "encoded %.0f videos/s",
            epoch,
            len(groups),
            reached,
            len(self.dataset),
            100 * reached / len(self.dataset),
            world_size(),
            len(self.dataset) / seconds,
        )
        return groups

    def _groups(self, epoch: int, pool: VideoVectorPool) -> list[list[str]]:
        """The groups of all processes: of the common pool, or those of each process's pool one after the
        other."""

        def draw(stream: int) -> list[list[str]]:
            rng = random.Random(f"{self.seed}-{epoch}-{stream}")
            size, near = (required(self.config, k) for k in ("dataset.num_video_per_batch", "num_cands"))
            return pool.retriever.batches(size, near, rng)

        if pool.shared:  # searching once also keeps rounding of another device out of it
            return _of_first_rank(draw(0) if rank() == 0 else None)
        parts: list[list[list[str]]] = [draw(rank())] * world_size()
        if world_size() > 1:
            dist.all_gather_object(parts, parts[rank()])
        return [group for part in parts for group in part]

    def _fingerprint(self, epoch: int, model: nn.Module) -> str:
        """Of everything the groups depend on: settings, videos, seed, epoch, number of processes, weights."""
        config = self.config
        meta: Any = self.dataset.meta_processor  # as named above, with an index
        digest = hashlib.sha256()
        settings = {
            "dataset": dataclasses.asdict(config.dataset),
            "retrieval": [
                config.num_cands,
                config.vectorpool_cls,
                config.retriever_cls,
                config.retri_index,
                config.retri_metric,
                config.centroids,
                config.examples_per_cent_to_train,
                config.retri_nprobe,
            ],
            "run": [self.seed, epoch, world_size()],
        }
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(meta.index.ids[meta.data].tobytes())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()


@torch.no_grad()
def encode(
    share: Subset, dataset: MMDataset, model: nn.Module, pool: VideoVectorPool, config: Config
) -> None:
    """Put one vector per video of `share` into `pool`; the model is left in the mode it was in."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    loader = DataLoader(
        share,
        batch_size=config.dataset.num_video_per_batch,
        collate_fn=dataset.collate,
        num_workers=1 if config.trainer.num_workers is None else config.trainer.num_workers,
        # else a pass over the data would move the global stream, and with it dropout
        generator=torch.Generator(),
    )
    for batch in tqdm(loader, desc="encoding videos for retrieval", disable=rank() != 0, leave=False):
        _n_videos, clips = batch["caps"].shape[:2]
        inputs = {
            name: batch[name].flatten(0, 1).to(parameter.device)
            for name in ("caps", "cmasks", "vfeats", "vmasks")
        }
        inputs["vfeats"] = inputs["vfeats"].to(parameter.dtype)
        output = model(**inputs)
        pool.add(batch["video_id"], output["pooled_video"], output["pooled_text"], clips)
    model.train(was_training)


def _of_first_rank(value: Any) -> Any:
    """What the first process holds, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _read(path: Path) -> dict | None:
    """Groups as stored; None where there are none, or the file is no whole JSON (it is then written anew)."""
    try:
        return read_json(path, dict)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.info("%s is damaged (%s)", path, error)
        return None
