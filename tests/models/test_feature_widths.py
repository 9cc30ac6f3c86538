"""Features of other backbones: every width through every model that reads them."""

from __future__ import annotations

import pytest
import torch

from mmpt.models.build import build_model
from mmpt.modules.layers import VideoTokenMLP

JOINT = {"mm_encoder_cls": "MMBertForEncoder"}
TWO = {"video_encoder_cls": "MMBertForEncoder", "text_encoder_cls": "BertModel"}
MODELS = {
    "MMFusionSeparate": TWO,
    "MMFusionSeparateActionSegmentation": TWO | {"video_encoder_cls": "MMBertForTokenClassification"},
    "MMFusionSeparateActionLocalization": TWO,
    "MMFusionShare": JOINT,
    "MMFusionJoint": JOINT,
    "MMFusionMTM": JOINT | {"mm_encoder_cls": "MMBertForMTM"},
    "MMFusionMFMMLM": JOINT | {"mm_encoder_cls": "MMBertForMFMMLM"},
    "MMFusionNLG": JOINT | {"mm_encoder_cls": "MMBertForNLG"},
}
WIDTHS = (256, 768, 4096)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_every_tower_reads_the_width_that_is_asked_for(make_config, name, width):
    config = make_config(name, dataset={"num_iso_layer": 0}, feature_dim=width, **MODELS[name])
    readers = [module for module in build_model(config).modules() if isinstance(module, VideoTokenMLP)]
    assert readers and {reader.linear1.in_features for reader in readers} == {width}
    tokens = readers[0](torch.randn(2, 3, width))
    assert tokens.shape == (2, 3, 32) and tokens.isfinite().all()


SMALL = {"text_encoder_cls": "BagOfWords", "embed_dim": 16}


@pytest.mark.parametrize(
    "keys",
    [
        TWO,
        SMALL | {"video_encoder_cls": "LinearVideo"},
        SMALL | {"video_encoder_cls": "AttentionVideo"},
        SMALL | {"video_encoder_cls": "LinearVideo", "dataset": {"feature_norm": "center"}},
    ],
    ids=["BERT", "linear", "attention", "centred"],
)
def test_features_of_another_width_are_named_with_the_key(make_config, keys):
    model = build_model(make_config("MMFusionSeparate", feature_dim=256, **keys))
    assert model.feature_width == 256
    mask, caps = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1, 2, 9, 2]])
    assert model.forward_video(torch.zeros(1, 2, 256), mask, caps, caps > 0).pooled.isfinite().all()
    with pytest.raises(ValueError, match="have 768 numbers .* reads 256: set model.feature_dim=768"):
        model.forward_video(torch.zeros(1, 2, 768), mask, caps, caps > 0)
