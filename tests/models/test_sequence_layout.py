"""The packing rule."""

from __future__ import annotations

import torch

from mmpt.models import sequence_layout as layout


def test_positions_keep_words_in_place_however_short_the_video():
    full = layout.position_ids(4, 8, max_video_len=8, device="cpu")[0].tolist()
    short = layout.position_ids(4, 3, max_video_len=8, device="cpu")[0].tolist()
    assert full == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert short == [0, 1, 2, 3, 9, 10, 11]


def test_text_pass_without_video_puts_words_where_the_joint_sequence_has_them():
    assert layout.position_ids(3, None, max_video_len=8, device="cpu")[0].tolist() == [0, 10, 11]


def test_token_types_call_cls_video_and_its_sep_zero():
    assert layout.token_types(4, 2, "cpu")[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert layout.token_types(3, None, "cpu")[0].tolist() == [0, 1, 1]


def test_max_words_leaves_room_for_three_special_tokens():
    assert layout.max_words(max_len=48, max_video_len=16) == 29


def test_split_undoes_splice(clips):
    caps, vmasks = clips["caps"], clips["vmasks"]
    joint = layout.splice(caps, vmasks.long() + 1000)
    video, text = layout.split(joint, vmasks.shape[1])
    assert torch.equal(video[:, 1:-1], vmasks.long() + 1000)
    assert torch.equal(video[:, [0, -1]], caps[:, :2])
    assert torch.equal(text, layout.text_segment(caps, clips["cmasks"]).ids)
    assert torch.equal(layout.caption_tokens(joint, vmasks.shape[1]), caps)


def test_segments_pool_what_the_field_pools(clips):
    video = layout.video_segment(clips["caps"], clips["cmasks"], clips["vmasks"])
    text = layout.text_segment(clips["caps"], clips["cmasks"])
    assert video.pool.sum(1).tolist() == [9, 2, 6]  # valid seconds and [SEP]
    assert text.pool.sum(1).tolist() == [4, 14, 2]  # words and final [SEP]
    assert not video.pool[:, 0].any() and not text.pool[:, 0].any()


def test_isolated_mask_equals_a_slow_loop(clips):
    cmasks, vmasks = clips["cmasks"], clips["vmasks"]
    n_video, valid = vmasks.shape[1], layout.splice(cmasks, vmasks)
    kind = ["cls"] + ["video"] * (n_video + 1) + ["text"] * (cmasks.shape[1] - 2)
    got = layout.isolated_mask(cmasks, vmasks)
    for b in range(len(cmasks)):
        for i, row in enumerate(kind):
            for j, column in enumerate(kind):
                assert got[b, i, j] == (row == column and bool(valid[b, j]))


def test_generation_mask_lets_words_see_the_past_only():
    mask = layout.generation_mask(torch.tensor([[True, False]]), 4)[0].int().tolist()
    assert mask[:4] == [[1, 1, 0, 1, 0, 0]] * 4
    assert mask[4:] == [[1, 1, 0, 1, 1, 0], [1, 1, 0, 1, 1, 1]]
