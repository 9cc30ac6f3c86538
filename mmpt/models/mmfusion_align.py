"""A single encoder that says whether a caption and a clip belong together.

Shape letters: B clips, F video tokens, T caption columns, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.config.schema import Config
from mmpt.models import sequence_layout as layout
from mmpt.models.bert import init_like_bert
from mmpt.models.mmfusion_joint import MMFusionJoint
from mmpt.registry import MODELS


@MODELS.register()
class MMFusionAlign(MMFusionJoint):
    """Scores pairs of a clip and a caption that it reads together: the model of the loss `NCE`.

    Beside the pairs of the batch it reads each clip with the caption of the next one, which the loss takes as
    misaligned.
    """

    returns = frozenset({"align_scores"})

    def __init__(self, config: Config):
        super().__init__(config)
        self.align = nn.Linear(self.bert_config.hidden_size, 2)
        init_like_bert(self.align, self.bert_config.initializer_range)

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        """`align_scores` (2B, 2): column 0 for belonging together; first the pairs of the batch, then the
        misaligned ones."""
        pairs = [torch.cat([text, text.roll(1, 0)]) for text in (caps, cmasks)] + [
            torch.cat([video, video]) for video in (vfeats, vmasks)
        ]
        caps, cmasks, vfeats, vmasks = pairs
        types = layout.token_types(caps.shape[1], vfeats.shape[1], caps.device)
        hidden = self.mm_encoder(caps, vfeats, layout.splice(cmasks, vmasks), types)
        return {"align_scores": self.align(hidden[:, 0])}
