import numpy as np
import pytest
import torch

from mmpt.audit.paragraphs import video_scores

VIDEO_OF_CAPTION, VIDEO_OF_CLIP = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2, 2])
SCORES = torch.rand(6, 7, generator=torch.Generator().manual_seed(0))


def order(scores):
    return scores.argsort(dim=1, descending=True).tolist()


@pytest.mark.parametrize("measure", ["DTW", "OTAM"])
def test_a_constant_added_to_all_scores_changes_the_published_measure_but_not_the_shift_free_one(measure):
    def of(shift, constant):
        return video_scores(SCORES + shift, VIDEO_OF_CAPTION, VIDEO_OF_CLIP, measure, constant)

    assert torch.allclose(of(5.0, None), of(0.0, None), atol=1e-5)
    assert order(of(-5.0, ("exact", 0.0))) != order(of(5.0, ("exact", 0.0)))


def test_the_shift_free_path_of_two_captions_and_two_clips_is_the_cheaper_corner():
    scores = torch.tensor([[0.9, 0.2], [0.6, 0.8]])
    found = video_scores(scores, np.array([0, 0]), np.array([0, 0]), "DTW", None)
    assert found.item() == pytest.approx(
        -(0.0 + 0.1) / 2
    )  # costs 0, .7, .3, .1; the diagonal alone is cheapest
