import pytest
import torch

from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.models.mmstica import Augment, Crops

IN_TIME = {"num_large_crops": 0, "num_small_crops": 0}
POOLING = {"layers": 1, "heads": 4, "ffn": 16}


@pytest.fixture
def make(make_config):
    """`make(map, versions, **model keys)`: a model on video (5 wide) and audio (6 wide)."""

    def build(place=None, versions=1, dataset=(), **keys):
        streams = {
            "video": {"path": "x", "width": 5, "map": place, "versions": versions},
            "audio": {"path": "y", "width": 6, "max_len": 4},
        }
        sizes = {"modalities": streams, "on_missing": "drop", **dict(dataset)}
        small = {"captions": False, "num_hidden_video_layers": 1, "contra_dim": 16, "pooling": POOLING}
        keys = {"crops": {} if place else IN_TIME, **small, **keys}
        torch.manual_seed(0)
        return build_model(make_config("MMSTiCA", sizes, **keys))

    return build


def batch_of(place=(), versions=1, lengths=(8, 5, 6)):
    draw = torch.Generator().manual_seed(1)
    video_masks = torch.arange(8) < torch.tensor(lengths)[:, None]
    shape = (3, 8, *place, 5 * versions)
    return {
        "caps": torch.tensor([[1, 2, 2, 0]] * 3),
        "cmasks": torch.ones(3, 4, dtype=torch.bool),
        "video_feats": torch.randn(shape, generator=draw) * video_masks.view(3, 8, *[1] * (len(shape) - 2)),
        "video_masks": video_masks,
        "audio_feats": torch.randn(3, 4, 6, generator=draw),
        "audio_masks": torch.ones(3, 4, dtype=torch.bool),
        "present": torch.ones(3, 2, dtype=torch.bool),
    }


def test_a_sequence_gives_both_versions_and_their_crops_in_time(make):
    output = make()(**batch_of())
    assert {kind: len(crop) for kind, crop in output["crops"].items()} == {"tl1": 2, "tl2": 2, "ts2": 1}
    embeddings = [output[f"pooled_{name}"] for name in ("video_1", "video_2", "audio")] + list(
        output["crops"]["tl1"]
    )
    assert all(x.shape == (3, 16) for x in embeddings)
    torch.testing.assert_close(torch.stack(embeddings).norm(dim=-1), torch.ones(5, 3))


def test_maps_are_also_cropped_in_space(make):
    output = make([4, 4])(**batch_of((4, 4)))
    assert {kind: len(crop) for kind, crop in output["crops"].items()} == {
        "sl1": 2,
        "sl2": 2,
        "ss2": 4,
        "tl1": 2,
        "tl2": 2,
        "ts2": 1,
    }


def test_boxes_depend_on_the_update_alone_and_versions_differ(make):
    model = make().eval()
    first, again, other = (model(**batch_of(), num_updates=update)["crops"]["tl1"] for update in (3, 3, 4))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    crops = Crops(**IN_TIME)
    drawn = {tuple(crops.draw((64,), update, version)) for update in range(5) for version in (1, 2)}
    assert len(drawn) == 10


def test_processes_share_boxes_unless_told_otherwise(monkeypatch):
    drawn = {}
    for share in (True, False):
        for rank in (0, 1):
            monkeypatch.setattr("mmpt.models.mmstica.rank", lambda rank=rank: rank)
            drawn[share, rank] = Crops(share_across_ranks=share, **IN_TIME).draw((64,), 7, 1)
    assert drawn[True, 0] == drawn[True, 1] and drawn[False, 0] != drawn[False, 1]


@pytest.mark.parametrize("place", [None, [4, 4]])
def test_crops_of_each_clip_do_not_depend_on_shorter_clips_of_the_batch(make, place):
    batch, short = (batch_of(place or (), lengths=lengths) for lengths in ((8, 5, 6), (8, 5, 1)))
    for per_sample in (True, False):
        model = make(place, crops={**({} if place else IN_TIME), "per_sample_crops": per_sample}).eval()
        crops, others = (model(**one)["crops"] for one in (batch, short))
        same = [torch.allclose(crops[kind][:, :2], others[kind][:, :2], atol=1e-6) for kind in crops]
        assert all(same) if per_sample else not any(same)


@pytest.mark.parametrize("per_sample", [False, True])
def test_padding_reaches_neither_the_whole_nor_the_crops(make, per_sample):
    model, batch = make(crops={**IN_TIME, "per_sample_crops": per_sample}).eval(), batch_of()
    expected = model(**batch)
    batch["video_feats"] = batch["video_feats"].masked_fill(~batch["video_masks"][..., None], 9.0)
    found = model(**batch)
    for name in ("pooled_video", "pooled_video_2"):
        torch.testing.assert_close(found[name], expected[name])
    for kind in expected["crops"]:
        torch.testing.assert_close(found["crops"][kind], expected["crops"][kind])


def test_one_stored_version_is_augmented_in_training_alone(make):
    model, batch = make(), batch_of()
    output = model(**batch)
    assert not torch.allclose(output["pooled_video_1"], output["pooled_video_2"])
    output = model.eval()(**batch)
    torch.testing.assert_close(output["pooled_video_1"], output["pooled_video_2"])
    torch.testing.assert_close(output["pooled_video_1"], output["pooled_video"])


def test_two_stored_versions_are_taken_as_they_are(make):
    model, batch = make(versions=2), batch_of(versions=2)
    output = model(**batch)
    single = make()
    single.load_state_dict(model.state_dict())
    for version in (1, 2):
        one = batch | {"video_feats": batch["video_feats"].chunk(2, -1)[version - 1]}
        expected = single.encode_items(**one)["pooled_video"]
        torch.testing.assert_close(output[f"pooled_video_{version}"], expected)


def test_an_augmentation_of_nothing_changes_nothing_and_others_have_their_size():
    features = torch.ones(64, 8, 32)
    assert torch.equal(Augment(feature_dropout=0.0, frame_dropout=0.0, noise=0.0)(features), features)
    noisy = Augment(feature_dropout=0.0, frame_dropout=0.0, noise=0.5)(3 * features)
    assert (noisy - 3).std().item() == pytest.approx(1.5, rel=0.05)
    masked = Augment(feature_dropout=0.0, frame_dropout=0.25, noise=0.0)(features)
    assert set(masked.unique().tolist()) <= {0.0, 1.0} and (masked == 0).all(
        2
    ).float().mean().item() == pytest.approx(0.25, abs=0.08)
    dropped = Augment(feature_dropout=0.5, frame_dropout=0.0, noise=0.0)(features)
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and (dropped == dropped[:, :1]).all()


@pytest.mark.parametrize("place", [None, [4, 4]])
def test_both_parts_of_the_loss_reach_both_towers(make, place):
    model, loss = make(place), build_loss({"loss_cls": "STiCALoss"})
    loss.check_model(model)
    output = model(**batch_of(place or ()))
    loss(**output).backward()
    for tower in (model.video_encoder, model.audio_encoder):
        gradients = [p.grad for p in tower.parameters() if p.grad is not None]
        assert sum(g.abs().sum() for g in gradients) > 0 and all(torch.isfinite(g).all() for g in gradients)


def test_eight_clips_are_learnt(make):
    model = make(augment={"noise": 0.05, "feature_dropout": 0.0, "frame_dropout": 0.0})
    loss = build_loss({"loss_cls": "STiCALoss", "temp": 0.1})
    batch, values = batch_of(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for update in range(40):
        value = loss(**model(**batch, num_updates=update))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) / 5 < 0.3 * values[0]


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"crops": {"num_large_crops": 2}}, "crops in space need stored feature maps"),
        (
            {"crops": {**IN_TIME, "temporal_larg": 0.5}},
            "model.crops.temporal_larg: unknown key. Did you mean .*temporal_large",
        ),
        (
            {"crops": {**IN_TIME, "num_small_tcrops": "one"}},
            "model.crops.num_small_tcrops: expected a whole number",
        ),
        ({"crops": {**IN_TIME, "modality": "depth"}}, "model.crops.modality=depth"),
        ({"pooling": {"layer": 1}}, "model.pooling.layer: unknown key. Did you mean .*layers"),
        ({"augment": {"nois": 1}}, "model.augment.nois: unknown key"),
        ({"dataset": {"on_missing": "mask"}}, "on_missing: drop"),
        ({"versions": 3}, "compares two versions"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_start(make, keys, message):
    with pytest.raises(ValueError, match=message):
        make(**keys)


def test_other_models_refuse_maps_at_the_start(make_config):
    streams = {"video": {"path": "x", "width": 5, "map": [4, 4]}}
    with pytest.raises(ValueError, match="map and versions are for MMSTiCA"):
        build_model(make_config("MMGram", {"modalities": streams}, num_hidden_video_layers=1))


def test_pooling_without_layers_sees_no_order_and_a_distinctive_reversal_is_refused(make):
    loss = build_loss({"loss_cls": "GDTLoss", "hypothesis": "v_reversal", "modalities": ["video", "audio"]})
    loss.check_model(make())
    blind = make(pooling={"layers": 0})
    with pytest.raises(ValueError, match="the video encoder does not see the order"):
        loss.check_model(blind)
    allowed = build_loss(
        {"loss_cls": "GDTLoss", "hypothesis": 2, "modalities": ["video", "audio"], "allow_degenerate": True}
    )
    allowed.check_model(blind)
    reversed_clip = batch_of(lengths=(8, 8, 8))
    reversed_clip["video_feats"] = reversed_clip["video_feats"].flip(1)
    for model, same in ((make().eval(), False), (blind.eval(), True)):  # the property says what is so
        whole, flipped = (
            model.encode_items(**b)["pooled_video"] for b in (batch_of(lengths=(8, 8, 8)), reversed_clip)
        )
        assert torch.allclose(whole, flipped, atol=1e-5) == same
