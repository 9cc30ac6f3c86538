"""A task joins data, model and loss; it knows neither fairseq nor files of a particular data set."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.checkpoints.weights import fit_state_dict, plain_state_dict
from mmpt.config import Config
from mmpt.datasets import MMDataset, build_dataset, training_pairs
from mmpt.losses import Loss, build_loss
from mmpt.losses.loss import NegativesConfig, not_finite
from mmpt.models import build_model
from mmpt.models.batching import (
    check_towers_read_alone,
    checkpoint_activations,
    compile_towers,
    forward_by_length,
    forward_in_parts,
    pack_towers,
)
from mmpt.models.groups import set_groups
from mmpt.models.mmfusion import MMFusion
from mmpt.models.prepare import observers, prepare
from mmpt.modules.synced_norm import synchronised
from mmpt.ops.distributed import world_size
from mmpt.registry import TASKS, load_plugins
from mmpt.tasks.zeroshot import ZeroShotTest

logger = logging.getLogger(__name__)

FEWEST_NEGATIVES = 31
NEVER = 2**62  # an update that will not come
TOKENS = {"video_outputs", "text_outputs", "video_mask_outputs", "text_mask_outputs"}


@dataclass(frozen=True)
class StepOutput:
    """What one batch gives: the loss to differentiate, and what a log wants to know."""

    loss: Tensor
    terms: Mapping[str, Tensor]
    n_clips: int
    n_uncaptioned: Tensor
    temperature: Tensor | None


class Place(NamedTuple):
    """Where a batch stands among those of all processes, which its draws go by.

    Attributes:
        seed: of the run.
        update: its number.
        before: items of the update that stand before those of the batch.
        items: of the batch.
    """

    seed: int
    update: int
    before: int
    items: int

    def seed_draws(self, rows: int, start: int) -> None:
        """Draw as is due to the row `start` of a batch of `rows` rows, on whatever process."""
        words = self.seed, self.update, self.before * rows // self.items + start
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))


@TASKS.register()
class Task:
    """Data, model and loss of one project file.

    Args:
        config: a resolved project file.
    """

    def __init__(self, config: Config):
        self.config = config
        self.loss: Loss | None = (
            build_loss(config.loss, config.source) if config.loss and config.loss.get("loss_cls") else None
        )
        if self.loss is not None:
            self.loss.check(
                clips_per_video=self.clips_per_video, videos_per_batch=config.dataset.num_video_per_batch
            )
            self.loss.check_data(config.dataset)
        self._zero_shot_test: ZeroShotTest | None = None
        self._noted = False
        self._first_bad: dict[tuple[str, ...], Tensor] = {}  # terms -> update in which each was not finite
        self.num_updates = 0  # of the trainer; losses that warm up or draw negatives read it
        self.place: Place | None = None  # of the batch in training, with dataset.global_batch

    @property
    def clips_per_video(self) -> int | None:
        """Clips drawn from one video; consecutive rows of a batch."""
        return self.config.dataset.clip_per_video or self.config.dataset.subsampling

    def build_dataset(self, split: str) -> MMDataset:
        """The data of `split` (train, valid or test)."""
        return build_dataset(self.config, split)

    def build_model(self, checkpoint: str | None = None) -> nn.Module:
        """The model to train, with the weights of `checkpoint` where one is given."""
        model = build_model(self.config, checkpoint)
        if self.config.model.sync_bn:
            model = synchronised(model)
        if self.loss is not None:
            self.loss.check_model(model)
            self.loss.check_temperature(model)
            if isinstance(model, MMFusion):
                model.tokens_in_training = bool(TOKENS & set(self.loss.reads))
        if checkpoint is None and observers(model):
            prepare(model, training_pairs(self.build_dataset("train")))
        groups = self.config.model
        if groups.learning_rates or groups.no_decay or groups.weight_decays:
            self._check_groups()
            set_groups(model, groups.learning_rates or {}, groups.no_decay or [], groups.weight_decays)
        if self.config.model.activation_checkpointing:
            checkpoint_activations(model)
        if self.config.model.compile:
            compile_towers(model)
        self.leave_padding_out(model)
        return model

    def leave_padding_out(self, model: nn.Module) -> None:
        """As `model.packed` or `model.length_buckets` say, where nothing reads it."""
        packed, buckets = self.config.model.packed, self.config.model.length_buckets
        if not packed and not buckets:
            return
        key = f"{self.config.source}: " + ("model.packed" if packed else "model.length_buckets")
        if packed and buckets:
            raise ValueError(f"{key} leaves all padding out, model.length_buckets some. Set one of them.")
        check_towers_read_alone(model, key)
        if self.loss and any(getattr(part, "reads_padding", False) for part in self.loss.modules()):
            raise ValueError(
                f"{key} leaves padding out, and loss.compat: true reads what towers make of it, as released. "
                "Set loss.compat: false, or leave the key out."
            )
        if packed:
            pack_towers(model)

    def _check_groups(self) -> None:
        """Refuses optimizers that know no groups, and precisions that join all parameters into one."""
        optimizer = self.config.trainer.optimizer
        if optimizer not in ("grouped_adamw", "grouped_sgd"):
            raise ValueError(
                f"{self.config.source}: model.learning_rates, weight_decays and no_decay need "
                f"fairseq.optimization.optimizer: grouped_adamw or grouped_sgd, got {optimizer}."
            )
        common = self.config.fairseq.get("common", {})
        joined = (common.get("fp16") or common.get("bf16")) and not common.get("fp16_no_flatten_grads")
        if joined and not (common.get("memory_efficient_fp16") or common.get("memory_efficient_bf16")):
            raise ValueError(
                f"{self.config.source}: model.learning_rates, weight_decays and no_decay in half precision "
                "need fairseq.common.fp16_no_flatten_grads: true, or all parameters become one."
            )

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The bare model's outputs of a batch, in training as `model.micro_batch` and `model.length_buckets`
        say."""
        size, buckets = self.config.model.micro_batch, self.config.model.length_buckets
        if not model.training:
            return model(**batch)
        encode = functools.partial(forward_by_length, model, buckets) if buckets else model
        rows = next((len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim()), 0)
        before = functools.partial(self.place.seed_draws, rows) if self.place else lambda start: None
        if size:
            return forward_in_parts(encode, size, dict(batch), before)
        before(0)
        return encode(**batch)

    def zero_shot(self, model: nn.Module) -> dict[str, float]:
        """Numbers of `eval.valid_project` for the model as it is; none where no such file is named."""
        if self.config.eval.valid_project is None:
            return {}
        if self._zero_shot_test is None:
            self._zero_shot_test = ZeroShotTest(self.config.eval.valid_project)
        return self._zero_shot_test(model)

    def restore(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Put the weights of a trainer's checkpoint into the bare model; what does not fit is reported or,
        for another model, an error."""
        fit_state_dict(model, plain_state_dict(state), "the checkpoint")

    def begin_epoch(self, dataset: MMDataset, epoch: int, model: nn.Module | None) -> None:
        """Hook before the batches of a training epoch are drawn."""
        dataset.meta_processor.begin_epoch(np.random.default_rng((dataset.seed, epoch)))

    def resume_state(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the weights, for an epoch to go on with the same batches."""
        return {}

    def resume(self, state: Mapping[str, Any], epoch: int) -> None:
        """Called with `resume_state` of the checkpoint when a run goes on in the middle of `epoch`."""

    def flatten(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the sub-sample axis into the batch axis: (B, S, ...) -> (B*S, ...)."""
        if (self.config.dataset.subsampling or 1) <= 1:
            return dict(sample)
        return {name: _merge_first_two(value) for name, value in sample.items()}

    def __call__(self, model: nn.Module, sample: Mapping[str, Any]) -> StepOutput:
        """One batch through model and loss.

        Args:
            model: the model, bare or in a data-parallel wrapper; its own forward is called, so that a wrapper
                synchronises gradients.
            sample: a collated batch.

        A term that is not finite raises at once on the CPU (see `Loss.record`). Elsewhere that would make the
        host wait before anything of the backward pass is queued: `assert_finite` tells later.

        Raises:
            FloatingPointError: names the term that is NaN or infinite.
            TypeError: the loss reads what neither batch nor model gives.
            ValueError: the loss has no gradient where one is asked for.
        """
        if self.loss is None:
            raise ValueError(
                f"{self.config.source}: loss.loss_cls is missing; training needs a loss, e.g. `loss_cls: "
                "MMContraLoss`."
            )
        batch = self.flatten(sample) | {
            "clips_per_video": self.clips_per_video,
            "num_updates": self.num_updates,
        }
        batch |= model(**batch)
        loss = self.loss(**batch)
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"{type(self.loss).__name__} returned a loss without gradient, which trains nothing. Make it "
                "of the model's outputs by torch, without .item(), .detach() or NumPy. Or is every parameter "
                "frozen (model.layernorm_only, model.frozen)?"
            )
        self._watch(self.loss.terms)
        self._note_negatives(len(batch["pooled_video"]) if "pooled_video" in batch else None)
        scale = batch.get("logit_scale", batch.get("cosine_scale"))
        temperature = None if scale is None else (-scale.detach().float()).exp()
        return StepOutput(loss, self.loss.terms, *self.count(batch), temperature)

    def _watch(self, terms: Mapping[str, Tensor]) -> None:
        """Notes on the device which terms are not finite; the host does not look."""
        if not terms:
            return
        finite = torch.stack([term.detach() for term in terms.values()]).isfinite()
        first = finite.long() * NEVER + (self.num_updates + 1)
        before = self._first_bad.get(names := tuple(terms))
        self._first_bad[names] = first if before is None else torch.minimum(before, first)

    def assert_finite(self) -> None:
        """Waits for the device.

        Raises:
            FloatingPointError: names each term that was NaN or infinite since the last call, and in which
                update first.
        """
        noted, self._first_bad = self._first_bad, {}
        bad = [
            f"{name} was not finite in update {update}"
            for names, first in noted.items()
            for name, update in zip(names, first.tolist(), strict=True)
            if update < NEVER
        ]
        if bad:
            raise not_finite(self.loss, bad)

    def _note_negatives(self, clips: int | None) -> None:
        """Say once where each clip of a batch has few others to be told from."""
        keys = getattr(self.loss, "config", None)
        if clips is None or self._noted or not isinstance(keys, NegativesConfig):
            return
        self._noted = True
        negatives = clips * (world_size() if keys.global_negatives else 1) - 1
        if negatives < FEWEST_NEGATIVES:
            logger.warning(
                "each clip is told from %d others, fewer than %d: so easy a contrast is soon learned. Raise "
                "fairseq.dataset.batch_size (of groups of videos: dataset.num_video_per_batch) or, with "
                "several processes, set loss.global_negatives: true.",
                negatives,
                FEWEST_NEGATIVES,
            )

    def count(self, batch: Mapping[str, Any]) -> tuple[int, Tensor]:
        """Captions of a batch, and how many of them have no words."""
        cmasks = batch["cmasks"].flatten(0, -2)
        # [CLS], [SEP] and the closing [SEP] are always there: a clip with nothing more has no words
        return len(cmasks), (cmasks.sum(-1) <= 3).sum()


def _merge_first_two(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() >= 2:
        return value.flatten(0, 1)
    return value


def build_task(config: Config) -> Task:
    """The task a project file names (`task:`, default Task)."""
    load_plugins(config.plugins)
    return TASKS.get(config.task or "Task", f"{config.source}: task")(config)
