"""MIL-NCE: several candidate captions a clip, of which at least one should fit.

Shapes: B clips, C candidate captions each, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmpt.losses.loss import option
from mmpt.losses.nce import ContrastConfig, PooledContrast
from mmpt.ops.contrastive import milnce, milnce_of_rows
from mmpt.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class MILNCEConfig(ContrastConfig):
    """Keys of MIL-NCE."""

    compat: bool = option(False, "a clip's own candidates count twice below, as in the released code")


@LOSSES.register()
class MILNCELoss(PooledContrast[MILNCEConfig]):
    """Pulls each clip to the bag of its candidate captions as a whole, pushes both from the captions and
    clips of the batch.

    Reads `pooled_video` (B, D) and `pooled_text` (B, C, D) or, candidates of a clip together, (B*C, D). C = 1
    is the symmetric form of noise-contrastive estimation with one denominator for both directions.

    Departs from the released code: the denominator is that of the paper, P_i + N_i. The release counts P_i
    twice, which adds up to log 2 to the loss; `compat: true` does so too.
    """

    Config = MILNCEConfig
    formula = (
        "mean_i -log( P_i / (P_i + N_i) ),  P_i = sum_c e(v_i, t_ic),\n"
        "N_i = sum_{j != i, c} [ e(v_i, t_jc) + e(v_j, t_ic) ],  e(v, t) = exp(v . t)"
    )
    paper = "Miech et al., CVPR 2020, eq. 1, [arXiv 1912.06430](https://arxiv.org/abs/1912.06430)"
    cost = "C N^2 D operations with C candidates a clip, and C times as many captions to encode."
    note = "Data: `task: MILNCETask` and `aligner: How2MILNCEAligner`; with one caption a clip any aligner."

    def forward(
        self, *, pooled_video: Tensor, pooled_text: Tensor, logit_scale: Tensor | None = None, **batch: Any
    ) -> Tensor:
        if len(pooled_video) == 0 or pooled_text.shape[:-1].numel() % len(pooled_video):
            raise ValueError(
                f"MILNCELoss: pooled_text {tuple(pooled_text.shape)} does not hold the same number of "
                f"candidates for each of the {len(pooled_video)} clips; expected (B, C, D) or (B*C, D)."
            )
        text = pooled_text.reshape(-1, pooled_text.shape[-1])
        if self.stores_scores(pooled_video, text, copies=4):
            scores = self.scores(pooled_video, text, logit_scale)
            loss = milnce(scores.view(len(scores), len(scores), -1), self.config.compat)
        else:
            loss = self._of_own_rows(pooled_video, text, logit_scale)
        self.record(milnce=loss)
        return loss

    def _of_own_rows(self, video: Tensor, text: Tensor, logit_scale: Tensor | None) -> Tensor:
        config, scaled = self.config, self._scaled(video, logit_scale)
        both, first = (config.join(scaled), config.join(text)), config.first_of(video)
        return config.over_ranks(milnce_of_rows(scaled, text, *both, first, config.compat))
