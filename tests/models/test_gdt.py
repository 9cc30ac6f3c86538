"""The networks of GDT and STiCA in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.losses.stica import STiCALoss
from mmpt.models.gdt import STiCANetwork
from mmpt.ops.crops import Crop
from tests.backbones.synthetic_weights import gdt_state, synthetic
from tests.conftest import golden_cases, load_golden

KINDS = {"sl": "spatial_large", "ss": "spatial_small", "tl": "temporal_large", "ts": "temporal_small"}


def inputs(golden, kind, n=None):
    index = golden[f"input_index_{kind}"]
    u = synthetic(int(index if n is None else index[n]), tuple(golden[f"{kind}_shape"]))
    return torch.from_numpy(u).requires_grad_()


def boxes(golden, version, shape):
    """The crops of a version; of the small ones those that the release compares."""
    steps, height, width = shape
    of = {key: golden[f"v{version}.{key}"].tolist() for key in ("large_boxes_hw", "small_boxes_hw")}
    spans = {key: golden[f"v{version}.{key}"].tolist() for key in ("large_spans_t", "small_spans_t")}
    n_small = len(of["small_boxes_hw"]) // len(of["large_boxes_hw"])
    n_short = len(spans["small_spans_t"]) // len(spans["large_spans_t"])
    crops = [Crop("sl", 0, steps, *box) for box in of["large_boxes_hw"]]
    crops += [Crop("ss", 0, steps, *box) for box in of["small_boxes_hw"][:n_small]]
    crops += [Crop("tl", *span, 0, height, 0, width) for span in spans["large_spans_t"]]
    return crops + [Crop("ts", *span, 0, height, 0, width) for span in spans["small_spans_t"][:n_short]]


@pytest.mark.parametrize("path", golden_cases("release_stica_e2e*.npz"))
def test_golden_release_stica_e2e_loss_of_its_embeddings(path):
    golden = load_golden(path)
    outputs = {
        f"pooled_{name}_{v}": torch.from_numpy(golden[f"v{v}.{name}"])
        for name in ("video", "audio")
        for v in (1, 2)
    }
    n_large, n_spans = (len(golden[f"v1.{key}"]) for key in ("spatial_large", "temporal_large"))
    n_small, n_short = (
        int(n) // of for n, of in zip(golden["crop_counts"][[1, 3]], (n_large, n_spans), strict=True)
    )
    kept = {"sl": n_large, "ss": n_small, "tl": n_spans, "ts": n_short}
    crops = {
        f"{kind}{v}": torch.from_numpy(golden[f"v{v}.{name}"][: kept[kind]])
        for kind, name in KINDS.items()
        for v in (1, 2)
    }
    loss = STiCALoss(temp=float(golden["temp"]), cross_modal_alpha=float(golden["cross_modal_alpha"]))
    value = loss(crops=crops, **outputs)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-12)
    sums = [
        loss.terms[f"crop_{kind}"] * int(n)
        for kind, n in zip(("sl_sl", "ss_sl", "tl_tl", "ts_tl"), golden["crop_counts"], strict=True)
    ]
    np.testing.assert_allclose(sums, golden["crop_losses"], rtol=1e-12)
    np.testing.assert_allclose(loss.terms["av"], golden["loss_av"], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("path", golden_cases("release_stica_e2e*.npz"))
def test_golden_release_stica_e2e_step(path):
    golden = load_golden(path)
    network = STiCANetwork(int(golden["num_layer"]), heads=int(golden["num_head"])).double()
    state = {
        k: v for k, v in gdt_state("stica_2layer", "", torch.float64).items() if k in network.state_dict()
    }
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    for head in (network.mlp_v, network.mlp_a):
        for name in "17":
            head.block_forward[{"1": 0, "7": 4}[name]].p = 0.0
    network.train()
    videos, audio = [inputs(golden, "video", n) for n in range(2)], inputs(golden, "audio")
    outputs, crops = {}, {}
    for version, video in enumerate(videos, 1):
        found = network.video_side(video, lambda shape, v=version: boxes(golden, v, shape), version)
        outputs[f"pooled_video_{version}"] = found.pop(f"pooled_video_{version}")
        crops |= found
        expected = golden[f"v{version}.video"]
        np.testing.assert_allclose(outputs[f"pooled_video_{version}"].detach(), expected, rtol=0, atol=1e-6)
        for kind, name in KINDS.items():
            if f"{kind}{version}" in found:
                part = found[f"{kind}{version}"].detach()
                np.testing.assert_allclose(part, golden[f"v{version}.{name}"][: len(part)], rtol=0, atol=1e-6)
    outputs |= network.audio_side(audio)
    np.testing.assert_allclose(outputs["pooled_audio"].detach(), golden["v1.audio"], rtol=0, atol=1e-6)
    loss = STiCALoss(temp=float(golden["temp"]), cross_modal_alpha=float(golden["cross_modal_alpha"]))
    value = loss(crops=crops, **outputs)
    np.testing.assert_allclose(value.detach(), golden["loss"], rtol=1e-6)
    value.backward()
    for name, gradient in {
        "grad_audio": audio.grad,
        **{f"grad_video{v}_t0_c0": x.grad for v, x in enumerate(videos, 1)},
    }.items():
        expected = golden[name]
        part = gradient if name == "grad_audio" else gradient[:, 0, ::8]
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    for name in (key for key in golden if key.startswith("grad.")):
        gradient = network.get_parameter(name.removeprefix("grad.")).grad
        np.testing.assert_allclose(gradient, golden[name], rtol=0, atol=1e-4 * np.abs(golden[name]).max())
