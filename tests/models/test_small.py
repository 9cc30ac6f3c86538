"""Small encoders: what they read, what they ignore, what a checkpoint must bring."""

from __future__ import annotations

import pytest
import torch

from mmpt.checkpoints.weights import fit_state_dict
from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.models.linear import RidgeBaseline
from mmpt.models.prepare import prepare
from mmpt.models.small import word_positions

TEXT = ["BagOfWords", "ContextWords", "AttentionWords"]
VIDEO = ["LinearVideo", "AttentionVideo"]


@pytest.fixture
def small(make_config):
    """`small(text, video, dataset={...}, **model keys)`: a model of width 20."""

    def make(text="ContextWords", video="LinearVideo", dataset=(), **model):
        keys = {"similarity": "cosine", "embed_dim": 20, "context_dim": 8} | model
        torch.manual_seed(0)
        config = make_config(
            "MMFusionSeparate", dataset, video_encoder_cls=video, text_encoder_cls=text, **keys
        )
        return build_model(config)

    return make


def test_words_are_what_stands_between_the_special_tokens():
    cmasks = torch.arange(7) < torch.tensor([[6], [3], [4]])  # 3 words, none, 1
    assert [x.tolist() for x in word_positions(cmasks)] == [[0, 0, 0, 2], [2, 3, 4, 2]]


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("video", VIDEO)
def test_pooled_vectors_are_the_same_with_and_without_token_vectors(small, clips, text, video):
    model = small(text, video).train()
    whole = model(**clips)
    model.tokens_in_training = False
    pooled = model(**clips)
    for name in ("pooled_text", "pooled_video"):
        torch.testing.assert_close(pooled[name], whole[name])
    assert whole["text_outputs"].shape == (3, 15, 20) and whole["video_outputs"].shape == (3, 10, 20)


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("video", VIDEO)
def test_what_stands_behind_a_clip_or_caption_changes_nothing(small, clips, text, video):
    model = small(text, video).eval()
    noisy = clips | {
        "vfeats": clips["vfeats"] + 9.0 * ~clips["vmasks"][..., None],
        "caps": clips["caps"] + 5 * ~clips["cmasks"],
    }
    with torch.no_grad():
        first, second = model(**clips), model(**noisy)
    for name in ("pooled_text", "pooled_video"):
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("text", TEXT)
def test_order_matters_to_the_encoders_that_say_so(small, text):
    caps = torch.tensor([[1, 2, 30, 40, 50, 60, 2], [1, 2, 60, 40, 50, 30, 2]])
    model = small(text).eval()
    for weight in model.text_encoder.parameters():
        torch.nn.init.normal_(weight)
    first, second = model.forward_text(caps, torch.ones_like(caps).bool()).pooled
    assert torch.allclose(first, second, atol=1e-5) != model.order_sensitive("text")


def test_a_cosine_times_the_learned_scale_is_what_losses_on_dot_products_see(small, clips):
    model = small()
    output = model(**clips)
    assert output["pooled_video"].norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert output["pooled_text"].norm(dim=1).tolist() == pytest.approx([1 / 0.07] * 3, rel=1e-5)
    build_loss({"loss_cls": "MMContraLoss"})(**output).backward()
    assert model.cosine_scale.grad is not None and model.video_encoder.linear.weight.grad.abs().sum() > 0


def test_the_same_holds_for_transformers(make_config, clips):
    towers = {"video_encoder_cls": "MMBertForEncoder", "text_encoder_cls": "BertModel"}
    output = build_model(make_config("MMFusionSeparate", similarity="cosine", **towers))(**clips)
    assert output["pooled_video"].norm(dim=1).tolist() == pytest.approx([1.0] * 3, rel=1e-5)


def test_rare_pieces_weigh_nothing_and_frequent_ones_less_with_idf(small):
    model = small("BagOfWords", min_count=2, idf=True)
    caps = torch.tensor([[1, 2, 30, 40, 2], [1, 2, 30, 50, 2], [1, 2, 40, 40, 2], [1, 2, 30, 60, 2]])
    prepare(model, [{"caps": caps, "cmasks": torch.ones_like(caps).bool()}])
    weights = model.text_encoder.importance[[30, 40, 50, 99]]
    torch.testing.assert_close(weights, torch.tensor([4 / 3, 4 / 2, 1, 1]).log())


@pytest.mark.parametrize("kind", ["center", "whiten"])
def test_features_are_normalised_by_what_training_saw_and_a_checkpoint_carries_it(small, clips, kind):
    model = small(dataset={"feature_norm": kind})
    rng = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(24, 24, generator=rng))[0] * torch.linspace(1, 3, 24)
    seen = torch.randn(40, 8, 24, generator=rng) @ axes.T + 3
    prepare(model, [{**clips, "vfeats": seen, "vmasks": torch.ones(40, 8).bool()}])
    normed = model.feature_norm(seen).flatten(0, 1)
    assert normed.mean(0).abs().max() < 1e-4
    if kind == "whiten":  # up to the shrinkage
        off = torch.cov(normed.T) - torch.eye(24)
        assert (off - torch.diag(off.diagonal())).abs().max() < 0.1
    loaded = small(dataset={"feature_norm": kind})
    fit_state_dict(loaded, model.state_dict(), "x.pt")
    assert torch.equal(loaded.feature_norm(seen), model.feature_norm(seen))


@pytest.mark.parametrize(
    "trained, read, cure",
    [
        ({"dataset": {"feature_norm": "center"}}, {}, "Set dataset.feature_norm: center"),
        ({}, {"similarity": "dot"}, "Set model.similarity: cosine"),
    ],
)
def test_a_checkpoint_is_refused_where_what_changes_every_score_would_go_unread(small, trained, read, cure):
    with pytest.raises(ValueError, match=cure):
        fit_state_dict(small(**read), small(**trained).state_dict(), "x.pt")


def test_the_untrained_linear_map_compares_the_features_themselves(small, clips):
    model = small(embed_dim=24, similarity="dot").eval()
    pooled = model(**clips)["pooled_video"]
    torch.testing.assert_close(pooled[0], clips["vfeats"][0].mean(0))


def test_ridge_as_a_model_solves_its_equations_and_leaves_out_absent_pieces(make_config, clips):
    model = RidgeBaseline(make_config("RidgeBaseline"))
    rng = torch.Generator().manual_seed(2)
    caps = torch.randint(10, 30, (400, 9), generator=rng)
    caps[:, :2], caps[:, -1] = torch.tensor([1, 2]), 2
    truth = torch.randn(100, 24, generator=rng)
    vfeats = truth[caps[:, 2:-1]].sum(1)[:, None].expand(-1, 8, -1)
    batch = {"caps": caps, "cmasks": torch.ones_like(caps).bool(), "vfeats": vfeats}
    prepare(model, [{**batch, "vmasks": torch.ones(400, 8).bool()}])
    torch.testing.assert_close(model.weights[10:30], truth[10:30], atol=0.05, rtol=0.05)
    assert model.weights[30:].abs().sum() == 0
    output = model(**batch, vmasks=torch.ones(400, 8).bool())
    assert (output["pooled_text"] * output["pooled_video"]).sum(1).min() > 0.999
