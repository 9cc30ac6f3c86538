"""Training on several sets, each with its own items, batch size and loss, as VAST's pre-training does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmpt.config import Config, load_config, schema
from mmpt.config.fairseq_args import batch_size
from mmpt.config.fields import Section, option
from mmpt.datasets import MixedDataset, MMDataset
from mmpt.datasets.mixture import SET
from mmpt.registry import TASKS
from mmpt.tasks.task import StepOutput, Task, build_task


@dataclass(frozen=True, kw_only=True)
class MixedSet(Section):
    """One entry of `mix`."""

    project: str = option("", "project file whose training set, batch size and loss these are")
    updates: float = option(1.0, "its share of all updates, as a weight", above=0)
    settings: list = option([], "section.key=value texts that change the project file")

    def load(self) -> Config:
        """The project file, changed."""
        return load_config(self.project, self.settings)


@TASKS.register()
class MixedTask(Task):
    """Training sets of several project files, for one model.

        task: MixedTask
        mix:
          vast27m: {project: projects/retri/gram/e2e/vast27m.yaml, updates: 60000}
          valor1m: {project: projects/retri/gram/e2e/vast/valor1m.yaml, updates: 25000}

    Every update reads one set, the same on all processes, drawn with a probability proportional to `updates`.
    `dataset:`, `loss:` and `fairseq.dataset.batch_size` of a set are those of its project file; model,
    optimizer, length and validation those of this file. Source: VAST (arXiv 2305.18500), as in GRAM's
    released code.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """The sets."""

        mix: Mapping[str, Mapping[str, Any]] | None = option(
            None, "training sets: name -> {project, updates, settings}", holds=MixedSet
        )

    def __init__(self, config: schema.Config):
        super().__init__(config)
        if config.dataset.global_batch:
            raise ValueError(
                f"{config.source}: dataset.global_batch={config.dataset.global_batch} is of one set; "
                "MixedTask takes fairseq.dataset.batch_size of each. Remove it."
            )
        self.sets = {
            name: MixedSet.from_yaml(entry, f"{config.source}: mix.{name}")
            for name, entry in (config.mix or {}).items()
        }
        if not self.sets:
            raise ValueError(f"{config.source}: MixedTask needs mix, training sets by name.")
        self.tasks = {name: build_task(one.load()) for name, one in self.sets.items()}

    def build_dataset(self, split: str) -> MMDataset | MixedDataset:
        if split != "train":
            return super().build_dataset(split)
        sizes = []
        for name, task in self.tasks.items():
            size = batch_size(task.config)
            if not size:
                source = task.config.source
                raise ValueError(f"{source}: a set of mix ({name}) needs fairseq.dataset.batch_size.")
            sizes.append(size)
        parts = {name: task.build_dataset("train") for name, task in self.tasks.items()}
        return MixedDataset(parts, sizes, [one.updates for one in self.sets.values()])

    def build_model(self, checkpoint: str | None = None) -> nn.Module:
        model = super().build_model(checkpoint)
        for task in self.tasks.values():
            if task.loss is not None:
                task.loss.check_model(model)
        return model

    def begin_epoch(self, dataset: Any, epoch: int, model: nn.Module | None) -> None:
        for name, task in self.tasks.items():
            task.begin_epoch(dataset.parts[name], epoch, model)

    def resume_state(self) -> dict[str, Any]:
        return {name: task.resume_state() for name, task in self.tasks.items()}

    def resume(self, state: Mapping[str, Any], epoch: int) -> None:
        for name, task in self.tasks.items():
            task.resume(state.get(name, {}), epoch)

    def __call__(self, model: nn.Module, sample: Mapping[str, Any]) -> StepOutput:
        """A batch of one set through the model and the loss of that set; its terms carry the set's name."""
        if SET not in sample:  # of validation
            return super().__call__(model, sample)
        task = self.tasks[sample[SET]]
        task.num_updates = self.num_updates
        step = task(model, {key: value for key, value in sample.items() if key != SET})
        terms = {f"{sample[SET]}/{name}": value for name, value in step.terms.items()}
        return StepOutput(step.loss, terms, step.n_clips, step.n_uncaptioned, step.temperature)
