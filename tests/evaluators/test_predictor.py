"""Predictors: what is collected from batches, and how it is kept."""

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import Config
from mmpt.evaluators import BGRetrievalPredictor, RetrievalPredictor, load_arrays, save_arrays
from mmpt.evaluators import predictor as module
from mmpt.evaluators.predictor import DealtOut, item_name, video_name


class Towers(nn.Module):
    """Passes the batch's vectors on; refuses to run in training mode or with gradients."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, caps, vfeats, **batch):
        assert not self.training and not torch.is_grad_enabled()
        caps, vfeats = (x[0] if x.ndim == 3 else x for x in (caps, vfeats))
        return {"pooled_text": caps.half() * self.weight, "pooled_video": vfeats * self.weight}


def test_retrieval_batches_are_joined_in_order():
    loader = [
        {"caps": torch.full((2, 3), 1), "vfeats": torch.zeros(2, 3), "video_id": [("a", 0, 5), ("a", 5, 9)]},
        {"caps": torch.full((1, 3), 2), "vfeats": torch.ones(1, 3), "video_id": ["b"]},
    ]
    arrays = RetrievalPredictor(Config())(loader, Towers())
    assert arrays["pooled_text"][:, 0].tolist() == [1, 1, 2] and arrays["pooled_text"].dtype == np.float32
    assert arrays["item_ids"] == ["a_0_5", "a_5_9", "b"] and arrays["video_ids"] == ["a", "a", "b"]
    assert arrays["texts"] == ["1 1 1", "1 1 1", "2 2 2"]


def test_a_batch_without_any_word_is_empty_texts():
    assert RetrievalPredictor(Config()).texts(torch.zeros(3, 0, dtype=torch.long)) == ["", "", ""]


def test_background_batches_count_captions_and_windows_of_each_video():
    loader = [
        {"caps": torch.ones(1, n, 4, dtype=torch.long), "vfeats": torch.ones(1, w, 4), "video_id": [name]}
        for n, w, name in ((2, 5, "a"), (3, 1, "b"))
    ]
    arrays = BGRetrievalPredictor(Config())(loader, Towers())
    assert (
        arrays["text_lengths"] == [2, 3] and arrays["video_lengths"] == [5, 1] and len(arrays["texts"]) == 5
    )
    assert arrays["pooled_video"].shape == (6, 4)


def test_ranks_share_out_the_batches_of_one_process(monkeypatch):
    whole, shares = DealtOut(11, 2), []
    monkeypatch.setattr(module, "world_size", lambda: 4)
    for number in range(4):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        shares.append(DealtOut(11, 2))
    assert whole == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert [share[0] for share in shares] + [share[1] for share in shares[:2]] == whole


def test_only_batches_that_were_dealt_out_are_gathered(monkeypatch):
    monkeypatch.setattr(module, "all_gather_items", lambda parts: parts * 2)
    batches = [{"caps": torch.ones(1, 3).int(), "vfeats": torch.ones(1, 3), "video_id": ["a"]}]

    class Loader(list):
        batch_sampler = DealtOut(1, 1)

    assert RetrievalPredictor(Config())(batches, Towers())["item_ids"] == ["a"]
    assert RetrievalPredictor(Config())(Loader(batches), Towers())["item_ids"] == ["a", "a"]


def test_an_empty_test_set_is_an_error():
    with pytest.raises(ValueError, match="the test set is empty"):
        RetrievalPredictor(Config())([], Towers())


def test_ids_are_named_whether_tuples_or_strings():
    assert item_name(("abc", 3, 10)) == "abc_3_10" and item_name("abc") == "abc"
    assert video_name(("abc", 3, 10)) == "abc" and video_name("abc") == "abc"


def test_kept_arrays_come_back(tmp_path):
    arrays = {"scores": np.eye(3), "ids": ["a", "b"], "logits": [np.ones((2, 3)), np.zeros((1, 3))]}
    save_arrays(tmp_path / "kept.npz", arrays)
    back = load_arrays(tmp_path / "kept.npz")
    assert back["ids"].tolist() == ["a", "b"] and [item.shape for item in back["logits"]] == [(2, 3), (1, 3)]
    np.testing.assert_array_equal(back["scores"], arrays["scores"])
