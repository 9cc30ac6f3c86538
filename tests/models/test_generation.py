"""Search for the next tokens, with a hand-made language of five words."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmpt.models.generation import _Finished, _step, beam_search, greedy_search, sample_search

EOS, PAD, C = 1, 0, 5


@pytest.fixture
def language():
    """next_logits of a random first-order language."""
    table = torch.randn(C, C, generator=torch.Generator().manual_seed(4)).mul(2)
    table[:, PAD] = -30  # never written, so that padding can be told from words
    return lambda ids: table[ids[:, -1]]


def log_prob(language, ids, n_prompt):
    """Log probability of what follows the prompt, up to and with EOS."""
    total = 0.0
    for n in range(n_prompt, len(ids)):
        total += float(language(torch.tensor([ids[:n]]))[0].log_softmax(-1)[ids[n]])
    return total


def test_greedy_takes_the_best_word_and_pads_after_the_end():
    table = torch.full((C, C), -9.0)
    table[2, 3], table[3, EOS], table[4, 4] = 9.0, 9.0, 9.0
    got = greedy_search(lambda ids: table[ids[:, -1]], torch.tensor([[2], [4]]), 6, EOS, PAD)
    assert got.tolist() == [[2, 3, EOS, PAD, PAD, PAD], [4] * 6]


def test_greedy_stops_when_all_have_ended():
    got = greedy_search(lambda ids: torch.eye(C)[[EOS] * len(ids)], torch.tensor([[2], [3]]), 50, EOS, PAD)
    assert got.shape == (2, 2)


def test_wide_beams_find_the_best_sequence_of_all(language):
    length = 4
    candidates = []
    for words in itertools.product(range(C), repeat=length - 1):
        ids = [2, *words]
        end = ids.index(EOS) if EOS in ids else None
        if end is not None:
            if ids[end:] != [EOS] * (length - end):
                continue  # the same sentence once
            candidates.append((log_prob(language, ids[: end + 1], 1) / end, ids[:end]))
        else:
            candidates.append((log_prob(language, ids, 1) / length, ids))
    best = max(candidates)[1]
    got = beam_search(language, torch.tensor([[2]]), length, EOS, PAD, num_beams=60)[0].tolist()
    assert got[: len(best)] == best


def test_sequences_in_a_batch_do_not_influence_each_other(language):
    alone = [
        beam_search(language, torch.tensor([[w]]), 7, EOS, PAD, num_beams=3)[0].tolist() for w in (2, 3, 4)
    ]
    together = beam_search(language, torch.tensor([[2], [3], [4]]), 7, EOS, PAD, num_beams=3).tolist()
    for one, row in zip(alone, together, strict=True):
        trimmed = [t for t in row if t != PAD]
        assert trimmed[: len(one)] == one and trimmed[len(one) :] in ([], [EOS])


def test_early_stopping_ends_no_later(language):
    late = beam_search(language, torch.tensor([[2]]), 12, EOS, PAD, 3)
    early = beam_search(language, torch.tensor([[2]]), 12, EOS, PAD, 3, early_stopping=True)
    assert early.shape[1] <= late.shape[1]


def test_an_end_ranked_below_the_beams_is_dropped():
    finished = _Finished(size=2, length_penalty=1.0, early_stopping=False)
    beams = torch.tensor([[2, 3], [2, 4]])
    place = [3, C + 4, EOS, 2]  # beam 0 word 3, beam 1 word 4, then an end and a word
    assert _step(beams, [-1.0, -2.0, -3.0, -4.0], place, C, EOS, finished) == [(-1.0, 0, 3), (-2.0, 1, 4)]
    assert _step(beams, [-1.0, -2.0, -3.0, -4.0], [EOS, 3, C + EOS, 4], C, EOS, finished) == [
        (-2.0, 0, 3),
        (-4.0, 0, 4),
    ]
    assert [(score, ids.tolist()) for score, ids in finished.beams] == [(-0.5, [2, 3])]


def test_search_goes_on_while_an_open_beam_could_replace_the_worst_finished_one():
    finished = _Finished(size=2, length_penalty=0.0, early_stopping=False)
    finished.add(torch.tensor([2]), -1.0)
    assert not finished.is_done(-9.0, 3)
    finished.add(torch.tensor([3]), -5.0)
    assert not finished.is_done(-3.0, 3) and finished.is_done(-6.0, 3)
    finished.add(torch.tensor([4]), -2.0)
    assert [score for score, _ in finished.beams] == [-1.0, -2.0] and finished.is_done(-3.0, 3)


def test_drawn_words_are_of_the_likeliest_as_often_as_they_say(language):
    uniforms = torch.rand(4000, 1, generator=torch.Generator().manual_seed(1))
    start = torch.full((4000, 1), 2)
    words = sample_search(language, start, 2, EOS, PAD, uniforms, top_k=3)[:, 1]
    best, tokens = language(torch.tensor([[2]]))[0].topk(3)
    shares = torch.stack([(words == token).float().mean() for token in tokens])
    assert shares.sum() == 1
    torch.testing.assert_close(shares, best.softmax(0), atol=0.04, rtol=0)


def test_drawn_texts_end_and_are_padded():
    table = torch.full((C, C), -99.0)
    table[2, 3], table[3, EOS], table[4, 4] = 9.0, 9.0, 9.0
    prompt, uniforms = torch.tensor([[2], [4]]), torch.full((2, 5), 0.5)
    got = sample_search(lambda ids: table[ids[:, -1]], prompt, 6, EOS, PAD, uniforms, top_k=2)
    assert got.tolist() == [[2, 3, EOS, PAD, PAD, PAD], [4] * 6]
