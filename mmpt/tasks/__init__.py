"""Tasks: what joins a data set, a model and a loss."""

from mmpt.tasks.fewshottask import FewShotTask
from mmpt.tasks.milnce import MILNCETask
from mmpt.tasks.mixedtask import MixedTask
from mmpt.tasks.retritask import RetriTask, VideoRetriTask
from mmpt.tasks.task import Place, StepOutput, Task, build_task
from mmpt.tasks.vlmtask import VLMTask

__all__ = [
    "FewShotTask",
    "MILNCETask",
    "MixedTask",
    "Place",
    "RetriTask",
    "StepOutput",
    "Task",
    "VLMTask",
    "VideoRetriTask",
    "build_task",
]
