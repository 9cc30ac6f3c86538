"""Batches of clips and captions, random and from the golden arrays of Norton's loss."""

import torch

from tests.conftest import golden_cases

CASES = golden_cases("norton_mmcontra_case*.npz")
INPUTS = ("pooled_video", "pooled_text", "video_outputs", "text_outputs")


def section_of(golden, **changes):
    hp = dict(zip(golden["hp_names"].tolist(), golden["hp"].tolist(), strict=True))
    sequence = {
        "threshold": int(hp["length"]),
        "prompt_ratio": hp["prompt_ratio"],
        "scale": hp["epsilon_scale"],
        "sequence_contrast_weight": hp["sequence_contrast_weight"],
    }
    shared = {name: hp[name] for name in ("beta", "alpha_lse", "fusion_weight")}
    return {
        "sinkhorn_iterations": int(hp["sinkhorn_iterations"]),
        **shared,
        "sequence_contrast": sequence,
        **changes,
    }


def batch_of(golden, dtype=torch.float64):
    tensors = {name: torch.tensor(golden[name], dtype=dtype, requires_grad=True) for name in INPUTS}
    return tensors | {
        f"{side}_mask_outputs": torch.tensor(golden[f"{side}_mask"]) for side in ("video", "text")
    }


def random_batch(n=16, words=6, frames=5, width=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    batch = {"pooled_video": draw(n, width), "pooled_text": draw(n, width)}
    batch |= {"video_outputs": draw(n, frames, width), "text_outputs": draw(n, words, width)}
    lengths = (
        torch.randint(1, frames + 1, (n, 1), generator=generator),
        torch.randint(1, words + 1, (n, 1), generator=generator),
    )
    return batch | {
        "video_mask_outputs": torch.arange(frames) < lengths[0],
        "text_mask_outputs": torch.arange(words) < lengths[1],
    }


def close(got, want, tolerance):
    got, want = torch.as_tensor(got, dtype=torch.float64), torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * want.abs().max().item())
