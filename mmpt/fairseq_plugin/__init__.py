"""mmpt inside fairseq: `--task mmtask --arch mmarch --criterion mmloss`. The only package that imports
fairseq.

Importing it repairs what fairseq needs on current torch (`compat`), lets signals stop training with a
checkpoint (`signals`), and registers the three names.
"""

from mmpt.fairseq_plugin import patches as compat
from mmpt.fairseq_plugin import signals

compat.apply()
signals.install()

from mmpt.fairseq_plugin.criterion import MMCriterion  # noqa: E402
from mmpt.fairseq_plugin.dataset import FairseqMMDataset  # noqa: E402
from mmpt.fairseq_plugin.lr_schedulers import WarmupMultistep, WarmupShare, WarmupThen  # noqa: E402
from mmpt.fairseq_plugin.model import FairseqMMModel  # noqa: E402
from mmpt.fairseq_plugin.optimizers import GroupedAdamW  # noqa: E402
from mmpt.fairseq_plugin.task import FairseqMMTask  # noqa: E402

__all__ = ["FairseqMMDataset", "FairseqMMModel", "FairseqMMTask", "MMCriterion", "compat", "signals"]
