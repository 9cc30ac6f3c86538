"""Retrieval-augmented batches: encode every training video, then group near neighbours (VideoCLIP, section 3.3, arXiv 2109.14084)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mmpt.config import Config
from mmpt.datasets import MMDataset, build_dataset
from mmpt.modules.vectorpool import VideoVectorPool
from mmpt.registry import RETRIEVERS, VECTOR_POOLS
from mmpt.utils.files import atomic_write

logger = logging.getLogger(__name__)


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class RetrievalBatches:
    """Composes the groups of one epoch, and keeps them on disk for a job that comes back.

    Args:
        config: the project file; `num_cands`, `vectorpool_cls`, `retriever_cls`, `retri_index`, `retri_metric` are read.
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
            expected: fingerprint of the groups a resumed run was in the middle of; they are read back, since the model has moved on.

        Raises:
            FileNotFoundError: the groups of the interrupted epoch are gone or of another run.
        """
        path = self.folder / f"epoch{epoch}.json"
        self.fingerprint = expected or self._fingerprint(epoch, model)
        stored = _read(path)
        if stored is not None and stored["fingerprint"] == self.fingerprint:
            logger.info("epoch %d: batches of near neighbours read back from %s", epoch, path)
            return stored["groups"]
        if expected is not None:
            raise FileNotFoundError(
                f"the checkpoint stands in the middle of epoch {epoch}, whose batches {path} are missing or of another run. "
                "Put the file back, or start the epoch anew with that checkpoint as fairseq.checkpoint.restore_file and reset_dataloader: true."
            )
        groups = self._compose(epoch, model)
        if world()[0] == 0:
            with atomic_write(path, "w") as file:
                json.dump({"fingerprint": self.fingerprint, "groups": groups}, file)
        return groups

    def _compose(self, epoch: int, model: nn.Module) -> list[list[str]]:
        rank, size = world()
        config = self.config
        retriever = RETRIEVERS.get(config.retriever_cls or "VectorRetriever")(
            metric=config.retri_metric,
            index=config.retri_index,
            centroids=config.centroids,
            examples_per_cent_to_train=config.examples_per_cent_to_train,
        )
        pool = VECTOR_POOLS.get(config.vectorpool_cls or "VideoVectorPool")(retriever)
        start = time.perf_counter()
        self.dataset.set_epoch(epoch)
        share = Subset(self.dataset, range(rank, len(self.dataset), size))
        encode(share, self.dataset, model, pool, config)
        pool.finalise()
        seconds = time.perf_counter() - start
        rng = random.Random(f"{self.seed}-{epoch}-{0 if pool.shared else rank}")
        groups = retriever.batches(config.dataset.num_video_per_batch, config.num_cands, rng)
        if size > 1 and not pool.shared:
            parts: list[list[list[str]]] = [None] * size
            dist.all_gather_object(parts, groups)
            groups = [group for part in parts for group in part]
        reached = len({video for group in groups for video in group})
        logger.info(
            "epoch %d: %d batches of near neighbours reach %d of %d videos (%.0f %%); encoding ran at %.0f videos/s",
            epoch, len(groups), reached, len(self.dataset), 100 * reached / len(self.dataset), len(share) / seconds,
        )  # fmt: skip
        return groups

    def _fingerprint(self, epoch: int, model: nn.Module) -> str:
        """Of everything the groups depend on: settings, seed, epoch, number of processes, weights."""
        config = self.config
        digest = hashlib.sha256()
        settings = {
            "dataset": dataclasses.asdict(config.dataset),
            "retrieval": [config.num_cands, config.vectorpool_cls, config.retriever_cls, config.retri_index, config.retri_metric,
                          config.centroids, config.examples_per_cent_to_train],
            "run": [self.seed, epoch, world()[1]],
        }  # fmt: skip
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()


@torch.no_grad()
def encode(share: Subset, dataset: MMDataset, model: nn.Module, pool: VideoVectorPool, config: Config) -> None:
    """Put one vector per video of `share` into `pool`; the model is left in the mode it was in."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    loader = DataLoader(
        share,
        batch_size=config.dataset.num_video_per_batch,
        collate_fn=dataset.collate,
        num_workers=config.fairseq.get("dataset", {}).get("num_workers", 1),
    )
    for batch in tqdm(loader, desc="encoding videos for retrieval", disable=world()[0] != 0, leave=False):
        n_videos, clips = batch["caps"].shape[:2]
        inputs = {name: batch[name].flatten(0, 1).to(parameter.device) for name in ("caps", "cmasks", "vfeats", "vmasks")}
        inputs["vfeats"] = inputs["vfeats"].to(parameter.dtype)
        output = model(**inputs)
        pool.add(batch["video_id"], output["pooled_video"], output["pooled_text"], clips)
    model.train(was_training)


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.is_file() else None
