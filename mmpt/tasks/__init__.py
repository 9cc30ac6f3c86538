"""Tasks: what joins a data set, a model and a loss."""

from mmpt.tasks.retritask import RetriTask, VideoRetriTask
from mmpt.tasks.task import StepOutput, Task, build_task

__all__ = ["RetriTask", "StepOutput", "Task", "VideoRetriTask", "build_task"]
