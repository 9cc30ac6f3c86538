"""Any update of a run again: its items, what they do to the gradient, and where two runs part."""

from mmpt.replay.log import RunLog, read_log
from mmpt.replay.parting import Parting, bisect
from mmpt.replay.repeat import Replay, repeat
from mmpt.replay.report import as_dict, as_text, parting_as_dict, parting_as_text

__all__ = [
    "Parting",
    "Replay",
    "RunLog",
    "as_dict",
    "as_text",
    "bisect",
    "parting_as_dict",
    "parting_as_text",
    "read_log",
    "repeat",
]
