from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.modules import AttentionPool, CropEmbedding
from mmpt.ops.crops import Crop, map_tokens
from tests.conftest import golden_cases, load_golden


def pool_of(golden):
    state = {
        name.removeprefix("w."): torch.tensor(x)
        for name, x in golden.items()
        if name.startswith("w.") and name != "w.pos_ids"
    }
    pool = AttentionPool(
        golden["feature_map"].shape[1],
        layers=int(golden["num_layers"]),
        heads=int(golden["num_heads"]),
        positional=bool(golden["positional_emb"]),
        value_proj=bool(golden["qkv_mha"]),
    )
    pool.load_state_dict(state)
    return pool.eval()


@pytest.mark.parametrize("path", golden_cases("gdt_stica_crops*.npz"))
def test_golden_gdt_stica_crops_attention_pooling(path):
    golden = load_golden(path)
    pool, features, steps = pool_of(golden), torch.tensor(golden["feature_map"]), int(golden["duration"])
    with torch.no_grad():
        np.testing.assert_allclose(
            pool.steps(map_tokens(features)), golden["full.attn_all"], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(pool(map_tokens(features)), golden["full.attn"], rtol=1e-5, atol=1e-5)
        for kind in ("s_large", "s_small", "t_large", "t_small"):
            for box, expected in zip(golden[kind].tolist(), golden[f"{kind}.attn"], strict=True):
                crop = Crop("sl", 0, steps, *box) if kind.startswith("s") else Crop("tl", *box, 0, 7, 0, 7)
                np.testing.assert_allclose(
                    pool(map_tokens(crop.apply(features), steps)), expected, rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("out_step", ["first", "mean"])
def test_padded_equals_unpadded(layers, out_step):
    torch.manual_seed(0)
    pool = AttentionPool(8, layers, heads=2, ffn=16, out_step=out_step, positional=True).eval()
    tokens, mask = torch.randn(3, 6, 8), torch.arange(6) < torch.tensor([[6], [4], [1]])
    pooled = pool(torch.where(mask[..., None], tokens, torch.nan), mask)
    for row, length in enumerate((6, 4, 1)):
        torch.testing.assert_close(pooled[row], pool(tokens[row : row + 1, :length])[0], rtol=1e-4, atol=1e-5)


def test_a_row_without_tokens_gives_zeros_and_finite_gradients():
    pool = AttentionPool(8, 1, heads=2, ffn=16)
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    pooled = pool(tokens, torch.tensor([[True, True, False], [False, False, False]]))
    pooled.sum().backward()
    assert (pooled[1] == 0).all() and tokens.grad.isfinite().all()


def test_without_layers_it_is_the_mean_without_parameters():
    pool = AttentionPool(8, 0)
    tokens = torch.randn(2, 3, 8)
    assert torch.equal(pool(tokens), tokens.mean(1)) and not list(pool.parameters())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="out_step"):
        AttentionPool(8, out_step="last")
    with pytest.raises(ValueError, match="heads=3"):
        AttentionPool(8, heads=3)


def test_crops_are_embedded_by_kind_and_version():
    model = CropEmbedding(AttentionPool(8, 0), torch.nn.Identity())
    features = torch.randn(2, 8, 4, 7, 7)
    crops = [Crop("sl", 0, 4, 0, 6, 0, 6), Crop("sl", 0, 4, 1, 7, 1, 7), Crop("ts", 1, 3, 0, 7, 0, 7)]
    whole, first = model(features, crops, version=1)
    _, second = model(features, crops, version=2)
    assert set(first) == {"sl1"} and set(second) == {"sl2", "ts2"}
    torch.testing.assert_close(whole, features.mean((2, 3, 4)))
    torch.testing.assert_close(first["sl1"][1], features[:, :, :, 1:7, 1:7].mean((2, 3, 4)))
    torch.testing.assert_close(second["ts2"][0], features[:, :, 1:3].mean((2, 3, 4)))
