from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.models.mmgram import columns_in_use
from mmpt.utils.columns import COLUMNS, last_column
from tests.device_waits import NoReads

MODALITIES = {
    "video": {"path": "x", "width": 24},
    "audio": {"path": "y", "width": 6, "max_len": 4},
    "subtitle": {"max_len": 10},
}


@pytest.fixture
def config(make_config):
    sizes = {"modalities": MODALITIES}
    return make_config(
        "MMGram",
        sizes,
        num_hidden_video_layers=1,
        contra_dim=16,
        learnable_temperature=True,
        matching_head=True,
    )


@pytest.fixture
def batch(clips):
    rng = torch.Generator().manual_seed(1)
    audio_masks = torch.arange(4) < torch.tensor([4, 2, 0])[:, None]
    return {
        "caps": clips["caps"],
        "cmasks": clips["cmasks"],
        "video_feats": clips["vfeats"],
        "video_masks": clips["vmasks"],
        "audio_feats": torch.randn(3, 4, 6, generator=rng) * audio_masks[..., None],
        "audio_masks": audio_masks,
        "subtitle_caps": clips["caps"][:, :10].clone(),
        "subtitle_cmasks": clips["cmasks"][:, :10].clone(),
        "present": torch.tensor([[True, True, True], [True, True, False], [True, False, True]]),
    }


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return build_model(config).eval()


def test_every_modality_becomes_a_unit_row(model, batch):
    output = model(**batch)
    for name in ("text", *MODALITIES):
        torch.testing.assert_close(output[f"pooled_{name}"].norm(dim=1), torch.ones(3))
        assert output[f"pooled_{name}"].shape == (3, 16)
    assert (
        output["present"]["audio"].tolist() == [True, True, False]
        and output["logit_scale"] is model.logit_scale
    )


def test_padding_does_not_reach_the_embedding(model, batch):
    expected = model(**batch)
    batch["audio_feats"] = batch["audio_feats"].masked_fill(~batch["audio_masks"][..., None], 5.0)
    batch["video_feats"] = batch["video_feats"].masked_fill(~batch["video_masks"][..., None], -3.0)
    found = model(**batch)
    for name in ("video", "audio"):
        torch.testing.assert_close(found[f"pooled_{name}"], expected[f"pooled_{name}"])


def test_a_test_with_fewer_frames_embeds_a_short_clip_as_training_did(config, model, batch):
    fewer = {**MODALITIES, "video": {**MODALITIES["video"], "max_len": 3}}
    other = build_model(replace(config, dataset=replace(config.dataset, modalities=fewer))).eval()
    other.load_state_dict(model.state_dict())
    clip = {key: value[1:2] for key, value in batch.items()}  # one second
    short = {**clip, "video_feats": clip["video_feats"][:, :3], "video_masks": clip["video_masks"][:, :3]}
    torch.testing.assert_close(other(**short)["pooled_video"], model(**clip)["pooled_video"])


def test_columns_that_no_row_fills_are_not_read_and_change_nothing(model, batch, monkeypatch):
    model, batch = (
        model.double(),
        {key: value.double() if value.is_floating_point() else value for key, value in batch.items()},
    )
    for key in ("caps", "cmasks", "subtitle_caps", "subtitle_cmasks"):
        batch[key] = functional.pad(batch[key], (0, 5))
    pairs, results, read = (torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])), [], []
    model.text_encoder.embeddings.register_forward_hook(
        lambda module, args, kwargs, output: read.append(output.shape[1]), with_kwargs=True
    )
    for columns in (columns_in_use, lambda mask, known=None: mask.shape[1]):
        monkeypatch.setattr("mmpt.models.mmgram.columns_in_use", columns)
        model.zero_grad()
        output = model(**batch)
        logits = output["matcher"](*pairs)
        loss = logits.sum() + sum(x.sum() for name, x in output.items() if name.startswith("pooled_"))
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append(
            [output["pooled_text"], output["pooled_video"], output["pooled_subtitle"], logits, *gradients]
        )
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert read == [
        9,
        15,
        15,
        14,
        20,
        20,
    ]  # subtitles, captions, captions of the matching head; without [SEP] of the video


def test_what_processes_exchange_has_one_shape_however_long_their_texts(model, batch):
    short = {key: value[2:] for key, value in batch.items()}  # one word, four seconds
    long, short = (model.encode_items(**items)["condition"].shape[1:] for items in (batch, short))
    assert long == short


def test_projections_have_no_bias_and_captions_and_subtitles_share_the_encoder(model, batch):
    assert all(projection.bias is None for projection in model.projections.values())
    assert sum(name.startswith("text_encoder.embeddings.word") for name in model.state_dict()) == 1
    model.projections["subtitle"].weight.data.copy_(model.projections["text"].weight)
    batch["subtitle_caps"], batch["subtitle_cmasks"] = batch["caps"], batch["cmasks"]
    output = model(**batch)
    torch.testing.assert_close(output["pooled_subtitle"], output["pooled_text"])


def test_the_matcher_ignores_padding_and_missing_modalities(model, batch):
    pairs = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    expected = model(**batch)["matcher"](*pairs)
    batch["video_feats"] = batch["video_feats"].masked_fill(~batch["video_masks"][..., None], 7.0)
    batch["subtitle_caps"][1] = 9  # missing in item 1
    torch.testing.assert_close(model(**batch)["matcher"](*pairs), expected)
    batch["present"][1, 2] = True
    assert not torch.allclose(model(**batch)["matcher"](*pairs), expected)


def test_an_item_without_its_conditions_still_gives_finite_logits(config, batch):
    model = build_model(replace(config, model=replace(config.model, matching_condition=["audio"])))
    logits = model(**batch)["matcher"](torch.tensor([2]), torch.tensor([2]))
    assert torch.isfinite(logits).all()


def test_text_attention_stays_bidirectional_with_a_matching_head(model, batch):
    full = {"caps": batch["caps"][1:2], "cmasks": torch.ones_like(batch["cmasks"][1:2])}
    changed = full["caps"].clone()
    changed[0, -1] = 17
    hidden = [model._text(caps, full["cmasks"]).outputs[0, 0] for caps in (full["caps"], changed)]
    assert not torch.allclose(*hidden)  # [CLS] sees the last word


def test_volume_and_matching_losses_reach_every_tower(model, batch):
    loss = build_loss({"loss_cls": "GRAMLoss", "dam_weight": 0.1})
    model.train()
    loss(**{**batch, **model(**batch)}).backward()
    for name in ("video_encoder", "audio_encoder", "text_encoder", "condition", "matcher", "projections"):
        gradients = [p.grad for p in getattr(model, name).parameters() if p.grad is not None]
        assert gradients and sum(g.abs().sum() for g in gradients) > 0, name
        assert all(torch.isfinite(g).all() for g in gradients), name
    assert model.logit_scale.grad is not None and set(loss.terms) == {"a2d", "d2a", "matching"}


@pytest.mark.parametrize("name", ["TriangleLoss", "PMRLLoss", "SymileLoss", "PairwiseNCE", "GDTLoss"])
def test_the_peers_train_on_the_same_output(model, batch, name):
    keys = (
        {"hypothesis": 1, "modalities": ["video", "audio"]}
        if name == "GDTLoss"
        else {"modalities": ["video", "audio"]}
    )
    loss = build_loss({"loss_cls": name, **keys})(**{**batch, **model(**batch)})
    loss.backward()
    assert torch.isfinite(loss) and model.audio_encoder.videomlp.linear1.weight.grad.abs().sum() > 0


def test_it_starts_from_a_two_tower_checkpoint_with_that_models_cosines(
    config, separate_config, clips, batch, tmp_path
):
    two_tower = build_model(separate_config).eval()
    torch.save(two_tower.state_dict(), tmp_path / "two.pt")
    started = replace(config, model=replace(config.model, init_from=str(tmp_path / "two.pt"), contra_dim=32))
    output = build_model(started).eval()(**batch)
    pooled = two_tower(**clips)
    expected = (
        functional.normalize(pooled["pooled_text"], dim=1)
        @ functional.normalize(pooled["pooled_video"], dim=1).T
    )
    torch.testing.assert_close(
        output["pooled_text"] @ output["pooled_video"].T, expected, atol=1e-5, rtol=1e-4
    )


def test_a_checkpoint_of_other_sizes_is_refused(config, tmp_path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no video_encoder"):
        build_model(replace(config, model=replace(config.model, init_from=str(tmp_path / "x.pt"))))


def test_a_start_that_is_not_there_says_what_to_train(config):
    with pytest.raises(
        FileNotFoundError, match="model.init_from=no.pt: no such checkpoint.*model.init_from=null"
    ):
        build_model(replace(config, model=replace(config.model, init_from="no.pt")))


def test_a_batch_of_another_aligner_is_refused(model, batch):
    del batch["audio_feats"]
    with pytest.raises(ValueError, match="no audio_feats.*ModalityAligner"):
        model(**batch)


def test_an_unknown_condition_is_named(config):
    with pytest.raises(ValueError, match="names depth"):
        build_model(replace(config, model=replace(config.model, matching_condition=["depth"])))


def test_without_captions_two_streams_train_by_gdt_alone(config, batch):
    streams = {name: MODALITIES[name] for name in ("video", "audio")}
    model = replace(config.model, captions=False, matching_head=False)
    model = build_model(replace(config, model=model, dataset=replace(config.dataset, modalities=streams)))
    batch["present"] = batch["present"][:, :2]
    output = model(**batch)
    assert "pooled_text" not in output and model.text_encoder is None
    loss = build_loss({"loss_cls": "GDTLoss", "hypothesis": 1})(**{**batch, **output})
    loss.backward()
    assert model.audio_encoder.videomlp.linear1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["GRAMLoss", "TriangleLoss", "PMRLLoss", "SymileLoss", "PairwiseNCE"])
def test_different_numbers_of_items_are_named_and_a_single_item_is_defined(model, batch, name):
    loss = build_loss({"loss_cls": name, "modalities": ["video", "audio"]})
    output = model(**batch)
    with pytest.raises(ValueError, match=r"audio \(2, 16\)"):
        loss(**{**batch, **output, "pooled_audio": output["pooled_audio"][:2], "present": None})
    one = model(**{key: value[:1] for key, value in batch.items()})
    value = loss(**one)
    value.backward()
    assert torch.isfinite(value) and all(
        torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None
    )


def test_a_frozen_tower_keeps_its_weights_and_its_projection_learns(config, batch):
    model = build_model(replace(config, model=replace(config.model, frozen=["video", "text"])))
    build_loss({"loss_cls": "GRAMLoss"})(**{**batch, **model(**batch)}).backward()
    assert all(
        p.grad is None for tower in (model.video_encoder, model.text_encoder) for p in tower.parameters()
    )
    assert (
        model.projections["video"].weight.grad is not None
        and model.audio_encoder.videomlp.linear1.weight.grad is not None
    )
    with pytest.raises(ValueError, match="model.frozen names depth"):
        build_model(replace(config, model=replace(config.model, frozen=["depth"])))


def test_what_a_model_says_it_returns_is_what_it_returns(config, separate_config, batch, clips):
    for own, inputs in ((config, batch), (separate_config, clips)):
        model = build_model(own)
        assert set(model(**inputs)) == model.returns


@pytest.mark.parametrize(
    "section, match",
    [
        (
            {"loss_cls": "STiCALoss"},
            "STiCALoss reads crops, pooled_video_1, pooled_video_2, which model.model_cls MMGram does not "
            "return",
        ),
        ({"loss_cls": "GRAMLoss", "modalities": ["video", "depth"]}, "GRAMLoss reads pooled_depth"),
        (
            {"loss_cls": "GDTLoss", "hypothesis": 1, "modalities": ["video", "depth"]},
            "GDTLoss reads pooled_depth",
        ),
        ({"loss_cls": "TriangleLoss"}, "two modalities, got 3"),
        (
            {"loss_cls": "SumLoss", "losses": [{"loss_cls": "GRAMLoss"}, {"loss_cls": "CrossEntropy"}]},
            "CrossEntropy reads logits",
        ),
    ],
)
def test_a_loss_that_reads_more_is_refused_before_training(config, section, match):
    with pytest.raises(ValueError, match=match):
        build_loss(section).check_model(build_model(config))


def test_the_matching_loss_without_a_head_names_the_key_to_set(config):
    bare = build_model(replace(config, model=replace(config.model, matching_head=False)))
    with pytest.raises(ValueError, match="model.matching_head: true"):
        build_loss({"loss_cls": "PMRLLoss", "dam_weight": 0.1}).check_model(bare)


@pytest.mark.parametrize("name", ["TriangleLoss", "PMRLLoss"])
def test_the_matching_loss_of_the_peers_trains_the_head(model, batch, name):
    loss = build_loss({"loss_cls": name, "modalities": ["video", "audio"], "dam_weight": 0.1})
    loss.check_model(model)
    loss(**{**batch, **model(**batch)}).backward()
    assert loss.terms["matching"] > 0 and model.matcher.head.linear2.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_matching_head_learns_the_pairs_that_its_own_test_then_finds(model, batch):
    loss = build_loss({"loss_cls": "GRAMLoss", "dam_weight": 1.0})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for update in range(120):
        optimizer.zero_grad()
        loss(**{**batch, **model(**batch)}, num_updates=update).backward()
        optimizer.step()
    with torch.no_grad():
        items = model.encode_items(**batch)
        text, item = (
            rows.flatten() for rows in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
        )
        found = model.match(
            batch["caps"][text],
            batch["cmasks"][text],
            items["condition"][item],
            items["condition_mask"][item],
        ).view(3, 3)
    assert (found.diag() > 0.8).all() and (found - torch.diag(found.diag())).max() < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["duplicates", "zeros", "missing"])
def test_gradients_are_finite_for_half_precision_inputs(model, batch, dtype, case):
    output = model(**batch)
    pooled = {name: x.detach() for name, x in output.items() if name.startswith("pooled_")}
    if case != "missing":
        pooled = {
            name: torch.zeros_like(x) if case == "zeros" else pooled["pooled_text"].clone()
            for name, x in pooled.items()
        }
    present = (
        output["present"]
        if case != "missing"
        else {name: torch.zeros(3, dtype=torch.bool) for name in output["present"]}
    )
    for cls in ("GRAMLoss", "PMRLLoss", "SymileLoss", "PairwiseNCE"):
        leaves = {name: x.to(dtype).requires_grad_() for name, x in pooled.items()}
        value = build_loss({"loss_cls": cls})(**leaves, present=present)
        value.backward()
        assert torch.isfinite(value) and all(
            torch.isfinite(x.grad).all() for x in leaves.values() if x.grad is not None
        ), cls


@pytest.mark.parametrize("counted", [True, False])
def test_an_update_on_a_gpu_does_not_wait_for_masks(model, batch, monkeypatch, counted):
    monkeypatch.setattr("mmpt.models.mmgram.may_look", lambda mask: False)
    if counted:
        batch[COLUMNS] = {key: last_column(mask) for key, mask in batch.items() if key.endswith("masks")}
    model.train()
    with NoReads():
        output = model(**batch)
        loss = output["matcher"](torch.tensor([0, 1]), torch.tensor([2, 0])).sum()
        (loss + output["pooled_text"].sum()).backward()


def test_columns_of_a_gpu_are_looked_at_outside_of_training_alone():
    mask = torch.ones(2, 7, dtype=torch.bool, device="meta")
    assert columns_in_use(mask) == 7 and columns_in_use(mask, 3) == 3 and columns_in_use(mask, 9) == 7
    with torch.no_grad(), pytest.raises(RuntimeError):  # "meta" has no value to look at
        columns_in_use(mask)
