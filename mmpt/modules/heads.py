"""Projection heads, with the parameter names of published GDT and STiCA checkpoints."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Two linear layers with batch norm between, as GDT and STiCA put on each encoder.

    dropout, Linear without bias, BatchNorm, ReLU, dropout, Linear. The numbers in `block_forward.<n>` are
    those of the checkpoints, which count reshaping steps that are not needed here. In training, batch norm
    needs at least two rows.

    Args:
        inputs: width of the encoder output.
        outputs: width of the embedding.
        hidden: width between the layers.
        dropout: rate before each linear layer.
    """

    def __init__(self, inputs: int, outputs: int = 256, hidden: int = 512, dropout: float = 0.3):
        super().__init__()
        layers = OrderedDict()
        layers["1"] = nn.Dropout(dropout)
        layers["2"] = nn.Linear(inputs, hidden, bias=False)
        layers["4"] = nn.BatchNorm1d(hidden)
        layers["6"] = nn.ReLU()
        layers["7"] = nn.Dropout(dropout)
        layers["8"] = nn.Linear(hidden, outputs)
        self.block_forward = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, outputs), not normalized."""
        return self.block_forward(x.flatten(1))
