"""Everything that is wrong with a project file, found without starting anything."""

from mmpt.config.check import check

__all__ = ["check"]
