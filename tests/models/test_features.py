"""Models on ready-made features."""

import torch

from mmpt.config import Config, ModelConfig
from mmpt.models.features import FeatureMean, FrameProjection


def test_the_mean_leaves_padding_out():
    vfeats = torch.tensor([[[2.0, 0.0], [4.0, 2.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert FeatureMean(Config()).forward_video(vfeats, mask, None, None).pooled.tolist() == [[3.0, 1.0]]


def test_an_untrained_projection_changes_nothing():
    frames = torch.randn(3, 8, 6)
    outputs = FrameProjection(Config(model=ModelConfig(feature_dim=6)))(
        support=frames, query=frames[:1], support_labels=None
    )
    torch.testing.assert_close(outputs["support"], frames)
    assert outputs["query"].shape == (1, 8, 6)
