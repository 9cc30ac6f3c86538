"""Less memory, same gradients."""

import dataclasses

import pytest
import torch

from mmpt.config import load_config
from mmpt.models import build_model
from mmpt.models.memory import checkpoint_activations, forward_in_parts
from mmpt.utils.seed import set_seed
from tests.conftest import ROOT

B = 6


@pytest.fixture
def config(toy_world):
    config = load_config(ROOT / "projects/toy/norton.yaml", [f"dataset.bert_name={toy_world}/model"])
    return dataclasses.replace(config, model=dataclasses.replace(config.model, learnable_temperature=True))


def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "caps": torch.randint(5, 90, (B, 32), generator=generator),
        "cmasks": torch.ones(B, 32, dtype=torch.bool),
        "vfeats": torch.randn(B, 16, 512, generator=generator),
        "vmasks": torch.ones(B, 16, dtype=torch.bool),
        "video_id": ["a"] * B,
    }


def gradients(config, prepare=lambda model: None, forward=lambda model, b: model(**b), training=False):
    set_seed(0)
    model = build_model(config).train(training)
    prepare(model)
    out = forward(model, batch())
    loss = torch.nn.functional.cross_entropy(out["pooled_text"] @ out["pooled_video"].T * out["logit_scale"].exp() * 0.01, torch.arange(B))
    set_seed(5)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_a_batch_in_parts_keeps_all_negatives_and_gives_the_gradient_of_the_whole(config, size):
    loss, expected = gradients(config)
    loss_in_parts, found = gradients(config, forward=lambda model, b: forward_in_parts(model, size, b))
    torch.testing.assert_close(loss_in_parts, loss)
    assert found.keys() == expected.keys() and "logit_scale" in found
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_recomputed_activations_give_the_same_gradients_with_dropout_on(config):
    loss, expected = gradients(config, training=True)
    loss_again, found = gradients(config, prepare=checkpoint_activations, training=True)
    assert torch.equal(loss, loss_again)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7, msg=name)


def test_parts_hold_fewer_activations_than_the_whole(config):
    def kept(forward):
        model, sizes = build_model(config), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            forward(model, batch())
        return sum(sizes)

    assert kept(lambda model, b: forward_in_parts(model, 2, b)) < kept(lambda model, b: model(**b)) / 5
