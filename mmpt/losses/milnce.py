"""MIL-NCE: several candidate captions a clip, of which at least one should fit.

Shapes: B clips, C candidate captions each, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmpt.losses.loss import Loss, NegativesConfig
from mmpt.ops.contrastive import dot_scores
from mmpt.registry import LOSSES


@LOSSES.register()
class MILNCELoss(Loss):
    """Pulls each clip to the bag of its candidate captions as a whole, pushes both from the captions and
    clips of the batch.

    mean_i -log( sum_c e(v_i, t_ic) / ( sum_c e(v_i, t_ic) + sum_{j != i, c} [ e(v_i, t_jc) + e(v_j, t_ic) ] )
    ), e(v, t) = exp(v . t).

    Reads `pooled_video` (B, D) and `pooled_text` (B, C, D) or, candidates of a clip together, (B*C, D). C = 1
    is the symmetric form of noise-contrastive estimation with one denominator for both directions.

    Source: Miech et al., "End-to-End Learning of Visual Representations from Uncurated Instructional Videos",
        CVPR 2020, eq. 1
    (arXiv 1912.06430).
    """

    Config = NegativesConfig

    def forward(self, *, pooled_video: Tensor, pooled_text: Tensor, **batch) -> Tensor:
        if len(pooled_video) == 0 or pooled_text.shape[:-1].numel() % len(pooled_video):
            raise ValueError(
                f"MILNCELoss: pooled_text {tuple(pooled_text.shape)} does not hold the same number of "
                "candidates for each of the "
                f"{len(pooled_video)} clips; expected (B, C, D) or (B*C, D)."
            )
        pooled_text = pooled_text.reshape(len(pooled_video), -1, pooled_text.shape[-1])
        pooled_video, pooled_text = self.config.join(pooled_video), self.config.join(pooled_text)
        loss = milnce(dot_scores(pooled_video, pooled_text.flatten(0, 1)).view(*[len(pooled_video)] * 2, -1))
        self.record(milnce=loss)
        return loss


def milnce(scores: Tensor) -> Tensor:
    """The loss from scores (B, B, C): clip i, owner j of the caption, candidate c."""
    n = len(scores)
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    other_clips = scores.transpose(0, 1).masked_fill(
        own[..., None], -torch.inf
    )  # captions of i with clips j != i
    positive = scores.diagonal().T.logsumexp(1)
    everything = torch.cat([scores, other_clips], dim=1).flatten(1).logsumexp(1)  # (B, 2*B*C)
    return (everything - positive).mean()
