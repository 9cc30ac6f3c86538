"""mmpt's model as a fairseq architecture."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import nn

from mmpt.tasks import Task


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """Holds the model as `mmmodel`, so checkpoints carry the published `mmmodel.` prefix."""

    def __init__(self, mmtask: Task):
        super().__init__()
        self.mmtask = mmtask
        self.mmmodel: nn.Module = mmtask.build_model()

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> FairseqMMModel:
        """Called by fairseq with the task that knows the project file."""
        return cls(task.mmtask)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Passes through to the task, inside whatever data-parallel wrapper fairseq has put around this."""
        return self.mmtask.forward(self.mmmodel, batch)

    def load_state_dict(
        self, state_dict: dict, strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> None:
        """Load a checkpoint's weights; keys that differ are reported once, grouped, with a verdict.

        Raises:
            ValueError: the checkpoint is of another model.
        """
        self.mmtask.restore(self.mmmodel, state_dict)


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """The YAML's `model:` section holds every setting; fairseq has none to fill in."""
