from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmpt.losses.stica as stica_losses
from mmpt.losses import STiCALoss
from mmpt.modules import AttentionPool, CropEmbedding
from mmpt.ops.crops import FeatureCrop
from tests.conftest import golden_cases, load_golden
from tests.ops.vectors import unit
from tests.simulated_ranks import SimulatedRanks

KINDS = ("sl1", "sl2", "ss2", "tl1", "tl2", "ts2")
LOGS = ("crop_sl_sl", "crop_ss_sl", "crop_tl_tl", "crop_ts_tl")


def batch_of(n=4, d=8, counts=(2, 3, 2, 1), dtype=torch.float64):
    sizes = dict(zip(("sl", "ss", "tl", "ts"), counts, strict=True))
    crops = {
        kind: unit(sizes[kind[:2]], n, d, seed=i, dtype=dtype).requires_grad_()
        for i, kind in enumerate(KINDS)
        if sizes[kind[:2]]
    }
    names = ("pooled_video_1", "pooled_video_2", "pooled_audio")
    return {
        "crops": crops,
        **{name: unit(n, d, seed=10 + i, dtype=dtype).requires_grad_() for i, name in enumerate(names)},
    }


def nce(q, k, temperature):
    return F.cross_entropy(q @ k.detach().T / temperature, torch.arange(len(q)))


def sym(p, q, temperature):
    return (nce(p, q, temperature) + nce(q, p, temperature)) / 2


@pytest.mark.parametrize("path", golden_cases("gdt_stica_loss*.npz"))
def test_golden_gdt_stica_loss_of_every_rank(path, monkeypatch):
    golden = load_golden(path)
    world, exact = int(golden["world_size"]), golden["v1"].dtype == np.float64
    rtol = 1e-10 if exact else 1e-5
    ranks = SimulatedRanks(monkeypatch, world, [stica_losses])
    section = {key: golden[key].item() for key in ("temp", "av_temp", "cross_modal_alpha", "num_small_crops")}

    def step(rank):
        crops = {
            kind: torch.tensor(golden[kind][:, rank], requires_grad=True)
            for kind in KINDS
            if golden[kind].size
        }
        wholes = {
            name: torch.tensor(golden[name][rank], requires_grad=True) for name in ("v1", "v2", "a1", "a2")
        }
        loss = STiCALoss(section)
        value = loss(
            crops=crops,
            pooled_video_1=wholes["v1"],
            pooled_video_2=wholes["v2"],
            pooled_audio_1=wholes["a1"],
            pooled_audio_2=wholes["a2"],
        )
        value.backward()
        return value.item(), loss.terms, crops | wholes

    for rank, (value, terms, leaves) in enumerate(ranks.run(step)):
        assert value == pytest.approx(golden["loss"][rank], rel=rtol)
        if section["cross_modal_alpha"]:  # a part without weight is not computed in the reference
            assert terms["av"].item() == pytest.approx(golden["loss_av"][rank], rel=rtol)
        for name, total, count in zip(LOGS, golden["crop_losses"][rank], golden["crop_counts"], strict=True):
            assert (name in terms) == (count > 0)
            assert not count or terms[name].item() == pytest.approx(total / count, rel=rtol)
        for name, leaf in leaves.items():
            expected = golden[f"grad_{name}"]
            expected = expected[:, rank] if name in KINDS else expected[rank]
            found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            np.testing.assert_allclose(found, expected, rtol=100 * rtol, atol=10 * rtol)


def test_equals_the_definition():
    batch = batch_of()
    crops, v1, v2, a = batch["crops"], batch["pooled_video_1"], batch["pooled_video_2"], batch["pooled_audio"]
    parts = [sym(crops["sl1"][1], crops["sl2"][1], 0.5), sym(crops["tl1"][1], crops["tl2"][1], 0.5)]
    parts += [nce(small, large, 0.5) for large in crops["sl1"] for small in crops["ss2"]]
    parts += [nce(small, large, 0.5) for large in crops["tl1"] for small in crops["ts2"]]
    across = (sym(v1, a, 0.1) + sym(v2, a, 0.1)) / 2
    expected = 0.7 * torch.stack(parts).mean() + 0.3 * across
    torch.testing.assert_close(STiCALoss({"cross_modal_alpha": 0.3})(**batch), expected)


def test_without_crops_the_loss_is_the_cross_modal_part():
    batch = batch_of(counts=(0, 0, 0, 0))
    expected = (
        sym(batch["pooled_video_1"], batch["pooled_audio"], 0.1)
        + sym(batch["pooled_video_2"], batch["pooled_audio"], 0.1)
    ) / 2
    torch.testing.assert_close(STiCALoss()(**batch), expected)
    torch.testing.assert_close(STiCALoss()(**batch_of(counts=(1, 0, 0, 0))), expected)


def test_text_takes_the_place_of_audio():
    batch = batch_of()
    spoken = STiCALoss()(**batch)
    batch["pooled_text"] = batch.pop("pooled_audio")
    assert torch.equal(STiCALoss()(**batch), spoken)
    with pytest.raises(ValueError, match="pooled_audio, which the model does not return"):
        STiCALoss({"modality": "audio"})(**batch)


def test_a_wrong_number_of_crops_is_named():
    with pytest.raises(ValueError, match="loss.num_small_crops .* says 4 crops, the model returns 3 of ss2"):
        STiCALoss({"num_small_crops": 4})(**batch_of())


def test_keys_carry_gradient_only_when_asked():
    for key_grad in (False, True):
        batch = batch_of(counts=(1, 2, 0, 0))
        STiCALoss({"key_grad": key_grad})(**batch).backward()
        gradient = batch["crops"]["sl1"].grad
        assert (gradient is not None) == key_grad


@pytest.mark.parametrize("case", ["duplicates", "zeros", "one sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_and_gradients_stay_finite(case, dtype):
    batch = batch_of(n=1 if case == "one sample" else 3)
    factor = 0.0 if case == "zeros" else 300.0

    def change(x):
        return (factor * x.detach()[..., :1, :].expand_as(x)).to(dtype).clone().requires_grad_()

    batch = {
        name: {k: change(c) for k, c in x.items()} if name == "crops" else change(x)
        for name, x in batch.items()
    }
    loss = STiCALoss({"temp": 0.01, "av_temp": 0.01, "key_grad": True})(**batch)
    loss.backward()
    leaves = [*batch["crops"].values(), *(x for name, x in batch.items() if name != "crops")]
    assert loss.isfinite() and loss.dtype == torch.float32
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


def test_a_map_trains_through_crops_pooling_and_loss():
    torch.manual_seed(0)
    maps, audio = torch.randn(8, 12, 4, 7, 7), torch.randn(8, 6)
    model = CropEmbedding(AttentionPool(12, layers=1, heads=2, ffn=16), torch.nn.Linear(12, 6))
    head = torch.nn.Linear(6, 6)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=0.03)
    crop, generator = FeatureCrop(num_small_crops=1), torch.Generator().manual_seed(0)
    loss, values = STiCALoss({"temp": 0.1, "av_temp": 0.1}), []
    for _ in range(30):
        videos, crops = [], {}
        for version in (1, 2):
            video, embedded = model(maps, crop.sample((4, 7, 7), generator), version)
            videos, crops = [*videos, video], crops | embedded
        value = loss(
            crops=crops, pooled_video_1=videos[0], pooled_video_2=videos[1], pooled_audio=head(audio)
        )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-5:]) < 0.5 * values[0]
