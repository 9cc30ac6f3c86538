"""`from mmpt_cli.localjob import LocalJob`, the line that papers print."""

from mmpt.launch.local import LocalJob

__all__ = ["LocalJob"]
