"""Norton's published configuration, and batches of the shapes of its pre-training.

31 text and 18 video positions of width 768; valid lengths are drawn as its samplers draw them (39 % of the
token pairs).
"""

from __future__ import annotations

import torch
from torch import Tensor

NORTON = {"sinkhorn_iterations": 50, "beta": 0.3, "sequence_contrast": {"threshold": 8}}
WORDS, FRAMES, WIDTH = 31, 18, 768


def norton_batch(
    n: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """n clips around a common direction each, so that the loss is of order 1."""
    generator = torch.Generator(device).manual_seed(n)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    common = draw(n, 1, WIDTH)
    batch = {
        "video_outputs": draw(n, FRAMES, WIDTH).mul_(3).add_(common),
        "text_outputs": draw(n, WORDS, WIDTH).mul_(3).add_(common),
        "pooled_video": (common[:, 0] + 2 * draw(n, WIDTH)) / 12,
        "pooled_text": (common[:, 0] + 2 * draw(n, WIDTH)) / 12,
    }
    batch = {name: x.to(dtype).requires_grad_() for name, x in batch.items()}
    # each with its closing separator
    words = torch.randint(8, 33, (n, 1), generator=generator, device=device).clamp(max=29) + 1
    seconds = torch.randint(3, 17, (n, 1), generator=generator, device=device) + 1
    return batch | {
        "text_mask_outputs": torch.arange(WORDS, device=device) < words,
        "video_mask_outputs": torch.arange(FRAMES, device=device) < seconds,
    }
