"""Classifiers on frozen vectors: a linear probe and nearest neighbours.

Letters: N vectors, M of them with known labels, D width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

WEIGHT_DECAY = 1e-3
PROBE_STEPS = 200
LOWEST = -2.0  # below any cosine: a class without training videos


def probe_scores(vectors: Tensor, train: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Logits (N, C) of a linear classifier fitted by L-BFGS: the same result in every run.

    Args:
        vectors: (N, D) unit rows.
        train: (M, D) unit rows to fit.
        labels: (M) their classes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        train, labels = train.clone(), labels.clone()
        weight, bias = (
            torch.zeros(n_classes, train.shape[1], requires_grad=True),
            torch.zeros(n_classes, requires_grad=True),
        )
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = cross_entropy(train @ weight.T + bias, labels) + WEIGHT_DECAY * weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    return vectors @ weight.detach().T + bias.detach()


def neighbour_scores(
    vectors: Tensor, train: Tensor, labels: Tensor, own: Tensor, n_classes: int
) -> tuple[Tensor, Tensor]:
    """Scores (N, C), the cosine of each class's nearest training vector, and the rank (N,) of the nearest one
    of the right class.

    Args:
        vectors: (N, D) unit rows.
        train: (M, D) unit rows.
        labels: (M) their classes.
        own: (N) right classes.
    """
    cosine = vectors @ train.T  # (N, M)
    best = cosine.new_full((len(vectors), n_classes), LOWEST).scatter_reduce(
        1, labels.expand_as(cosine), cosine, "amax"
    )
    return best, 1 + (cosine > best.gather(1, own[:, None])).sum(1)
