"""BERT with cross-attention computes what the released multimodal encoder computes, and writes what it
writes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmpt.models.bert import BertConfig
from mmpt.models.generation import beam_search, greedy_search
from mmpt.models.multimodal_bert import MultimodalBert, Writer
from mmpt.modules.matching import GramMatchHead
from tests.conftest import golden_cases, load_golden
from tests.device_waits import NoReads
from tests.golden_modules import arrays_below, assert_equal_up_to_rounding, assert_gradients

CLS, SEP, MASK, PAD = 1, 2, 3, 0


def build(golden: dict[str, np.ndarray]) -> MultimodalBert:
    state = arrays_below(golden, "state")
    vocabulary, width = state["bert.embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=int(golden["cfg.num_hidden_layers"]),
        num_attention_heads=int(golden["cfg.num_attention_heads"]),
        intermediate_size=len(state["bert.encoder.layer.0.intermediate.dense.bias"]),
        max_position_embeddings=len(state["bert.embeddings.position_embeddings.weight"]),
        layer_norm_eps=float(golden["cfg.layer_norm_eps"]),
    )
    encoder = MultimodalBert(config)
    encoder.bert.add_cross_attention()
    encoder.double().load_state_dict(
        {name: value for name, value in state.items() if not name.endswith("position_ids")}
    )
    return encoder.eval()


@pytest.fixture(scope="module", params=golden_cases("release_mmbert_*.npz"))
def golden(request):
    return load_golden(request.param)


@pytest.fixture
def encoder(golden):
    return build(golden)


@pytest.fixture
def arrays(golden):
    return {name: torch.from_numpy(value) for name, value in golden.items() if value.dtype.kind != "U"}


def test_golden_release_mmbert_hidden_states_with_and_without_condition(encoder, arrays):
    text = arrays["in.input_ids"], arrays["in.attention_mask"]
    assert_equal_up_to_rounding(encoder(*text), arrays["out.text_only"])
    assert_equal_up_to_rounding(encoder(*text, arrays["in.condition"]), arrays["out.cross"])


def test_golden_release_mmbert_matching(encoder, arrays, golden):
    head = GramMatchHead(arrays["in.condition"].shape[-1]).double()
    head.load_state_dict(arrays_below(golden, "itm_head"))
    condition = arrays["in.condition"].requires_grad_()
    logits = head(encoder(arrays["in.input_ids"], arrays["in.attention_mask"], condition)[:, 0])
    assert_equal_up_to_rounding(logits, arrays["itm.logits"])
    assert_equal_up_to_rounding(logits.softmax(1)[:, 1], arrays["itm.score"])
    loss = functional.cross_entropy(logits, arrays["itm.target"])
    assert_equal_up_to_rounding(loss, arrays["itm.loss"])
    loss.backward()
    assert_equal_up_to_rounding(condition.grad, arrays["itm.grad_condition"])
    assert_gradients(encoder, arrays_below(golden, "itm.grad"))


def test_golden_release_mmbert_masked_words(encoder, arrays):
    condition = arrays["in.condition"].requires_grad_()
    logits = encoder.logits(encoder(arrays["cap.input_ids"], arrays["cap.attention_mask"], condition))
    assert_equal_up_to_rounding(logits, arrays["cap.logits"])
    loss = functional.cross_entropy(logits.flatten(0, 1), arrays["cap.labels"].flatten())
    assert_equal_up_to_rounding(loss, arrays["cap.loss"])
    loss.backward()
    assert_equal_up_to_rounding(condition.grad, arrays["cap.grad_condition"])


@torch.inference_mode()
def test_golden_release_mmbert_next_word_read_step_by_step(encoder, arrays):
    writer = Writer(encoder, torch.ones(3, 1, 1), arrays["in.condition"], MASK)
    for n in range(1, arrays["step.prefix"].shape[1] + 1):
        logits = writer(arrays["step.prefix"][:, :n])
    assert_equal_up_to_rounding(logits, arrays["step.next_logits"])


@torch.inference_mode()
def test_golden_release_mmbert_written_texts(encoder, arrays):
    prompt, end = torch.full((3, 1), CLS), {"max_length": 9, "eos_id": SEP, "pad_id": PAD}

    def writer() -> Writer:
        return Writer(encoder, torch.ones(3, 1, 1), arrays["in.condition"], MASK)

    assert torch.equal(greedy_search(writer(), prompt, **end), arrays["gen.greedy"])
    for name, penalty in ("beam3", 0.6), ("beam3_lp1", 1.0):
        assert torch.equal(
            beam_search(writer(), prompt, num_beams=3, length_penalty=penalty, **end), arrays[f"gen.{name}"]
        )


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = MultimodalBert(BertConfig(vocab_size=30, max_position_embeddings=32, **sizes))
    encoder.bert.add_cross_attention()
    return encoder.double().eval()


def test_rows_that_share_a_condition_read_it_as_if_each_had_its_own(tiny):
    ids, condition = torch.randint(4, 30, (6, 5)), torch.randn(2, 7, 16).double()
    there = torch.arange(7) < torch.tensor([7, 4])[:, None]
    mask = torch.ones_like(ids)
    own = tiny(ids, mask, condition.repeat_interleave(3, 0), there.repeat_interleave(3, 0))
    torch.testing.assert_close(tiny(ids, mask, condition, there), own)


def test_a_masked_token_of_a_condition_changes_nothing(tiny):
    ids, condition = torch.randint(4, 30, (2, 5)), torch.randn(2, 7, 16).double()
    there = torch.arange(7).expand(2, -1) < 4
    expected = tiny(ids, torch.ones_like(ids), condition[:, :4])
    torch.testing.assert_close(tiny(ids, torch.ones_like(ids), condition, there), expected)


@torch.inference_mode()
def test_what_is_remembered_follows_the_beams(tiny):
    """Rows that change places between steps, as beams do, are scored like texts read from the start."""
    condition, first = torch.randn(2, 7, 16).double(), torch.full((4, 1), CLS)
    writer = Writer(tiny, torch.ones(2, 1, 1), condition, MASK)
    writer(first)
    grown = torch.cat([first, torch.tensor([[5], [6], [7], [8]])], 1)
    writer(grown)
    swapped = torch.cat([grown[[1, 0, 2, 2]], torch.tensor([[9], [10], [11], [12]])], 1)
    masked = torch.cat([swapped, torch.full((4, 1), MASK)], 1)
    whole = tiny(masked, torch.ones(4, 4, 4).tril(), condition)
    torch.testing.assert_close(writer(swapped), tiny.logits(whole[:, -1]))


def test_reading_does_not_ask_for_values_of_masks(encoder, arrays):
    ids, condition = arrays["in.input_ids"], arrays["in.condition"]
    all_there = torch.ones(condition.shape[:2], dtype=torch.bool)
    with NoReads():
        encoder(ids, torch.ones_like(ids), condition, all_there).sum().backward()
