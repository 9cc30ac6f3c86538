import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.processors import (
    FrameMaskingProcessor,
    MFMMLMAligner,
    MMAttentionMask2DProcessor,
    TextGenerationProcessor,
    TextMaskingProcessor,
)
from mmpt.processors.masking import mask_written
from mmpt.processors.tokens import SpecialIds
from mmpt.utils import ItemRandom
from tests.conftest import golden_cases, load_golden
from tests.processors.helpers import CONFIG, SPECIAL
from tests.processors.items import TEXT, VIDEO, assert_matches

MODES = [None, "no", "full", "inverse", "mask"]
IDS = torch.tensor([1, 2, *range(10, 26), 2, 0, 0])


def seeded(seed):
    return torch.Generator().manual_seed(int(seed))


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_mfmmlm_aligner_replays_draws_and_masks(golden):
    config = replace(CONFIG, sampler="python", sort_clips=False, mm_prob=0.5)
    item = MFMMLMAligner(config, SPECIAL)(
        "v", golden["video_feature"], golden["text"], ItemRandom(golden["seed"])
    )
    assert_matches(golden, "videoclip_aligner_mfmmlm", item)


@pytest.mark.parametrize("mode", ["textgen", "videogen", "full"])
@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_mask2d(golden, mode):
    vmask, cmask = torch.from_numpy(golden["mask2d_vmask"]), torch.from_numpy(golden["mask2d_cmask"])
    np.testing.assert_array_equal(MMAttentionMask2DProcessor()(vmask, cmask, mode), golden[f"mask2d_{mode}"])


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_textgen_shifts_the_caption(golden):
    inputs, labels = TextGenerationProcessor(SPECIAL)(torch.from_numpy(golden["textgen_in"]))
    np.testing.assert_array_equal(inputs, golden["textgen_inputs"])
    np.testing.assert_array_equal(labels, golden["textgen_labels"])


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_textmask(golden):
    for j, mode in enumerate(MODES):
        inputs, labels = TextMaskingProcessor(CONFIG, SPECIAL)(
            torch.from_numpy(golden["textgen_in"]), seeded(golden["seed"] + j), mode
        )
        np.testing.assert_array_equal(inputs, golden[f"textmask{j}_inputs"])
        np.testing.assert_array_equal(labels, golden[f"textmask{j}_labels"])


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_framemask(golden):
    for j, mode in enumerate(MODES[:4]):
        label = FrameMaskingProcessor(CONFIG)(
            torch.from_numpy(golden["mask2d_vmask"]), seeded(golden["seed"] + j), mode
        )
        np.testing.assert_array_equal(label, golden[f"framemask{j}"])


def test_masked_words_are_labelled_and_special_tokens_never_masked():
    config = replace(CONFIG, mlm_probability=0.5)
    for seed in range(20):
        inputs, labels = TextMaskingProcessor(config, SPECIAL)(IDS, seeded(seed))
        assert (inputs[labels == -100] == IDS[labels == -100]).all()
        assert (labels[labels != -100] == IDS[labels != -100]).all()
        assert (labels[IDS < 3] == -100).all()


def test_four_fifths_of_the_chosen_words_become_the_mask_token():
    ids = torch.full((20_000,), 50)
    inputs, labels = TextMaskingProcessor(CONFIG, SPECIAL)(ids, seeded(0))
    chosen = labels != -100
    shares = [
        chosen.float().mean(),
        (inputs[chosen] == SPECIAL.mask).float().mean(),
        (inputs[chosen] == 50).float().mean(),
    ]
    np.testing.assert_allclose(shares, [0.15, 0.8 + 0.1 / 100, 0.1 + 0.1 / 100], atol=0.02)


def test_textgenmask_masks_inputs_and_keeps_the_shifted_labels():
    config = replace(CONFIG, mlm_probability=1.0)
    inputs, labels = TextMaskingProcessor(config, SPECIAL)(IDS, seeded(0), "textgenmask")
    assert (inputs == SPECIAL.mask).any()
    assert torch.equal(labels, TextGenerationProcessor(SPECIAL)(IDS)[1])


def test_an_unknown_mask_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="'half', expected one of"):
        FrameMaskingProcessor(CONFIG)(torch.ones(3, dtype=torch.bool), seeded(0), "half")


def test_masked_frames_are_zeroed_unless_the_model_does_it():
    for lazy in (False, True):
        config = replace(CONFIG, mfm_probability=0.5, lazy_vfeat_mask=lazy)
        item = MFMMLMAligner(config, SPECIAL)("v", VIDEO + 1, TEXT, ItemRandom(0))
        assert item["video_label"].any() and not item["video_label"][~item["vmasks"]].any()
        assert (item["vfeats"][item["video_label"]] == 0).all() != lazy


def test_whole_text_masking_can_ask_for_generation_with_its_attention_mask():
    item = MFMMLMAligner(replace(CONFIG, mm_prob=1.0, mm_type="textgen"), SPECIAL)(
        "v", VIDEO, TEXT, ItemRandom(0)
    )
    assert item["attention_mask"].shape == (6, 48, 48)
    generated = item["caps"][:, 2] == SPECIAL.cls
    assert generated.any() and not generated.all()
    assert not item["video_label"][generated].any() and (item["text_label"][~generated] == -100).all()


def test_masked_clips_come_in_order_of_time():
    item = MFMMLMAligner(CONFIG, SPECIAL)("v", VIDEO, TEXT, ItemRandom(0))
    assert item["text_start"].tolist() == sorted(item["text_start"].tolist())


@pytest.mark.parametrize("case", golden_cases("release_mmbert_*.npz"))
def test_golden_release_mmbert_masks_of_written_texts(case):
    golden = load_golden(case)
    cls, sep, mask, pad = map(int, golden["cfg.special_ids_cls_sep_mask_pad"])
    vocabulary = golden["cap.logits"].shape[-1]
    kept = golden["in.attention_mask"].astype(bool)
    rows = [ids[there].tolist() for ids, there in zip(golden["in.input_ids"], kept, strict=True)]
    special = SpecialIds(cls, sep, pad, mask, vocabulary)
    masked, labels = mask_written(rows, 0.6, special, random.Random(int(golden["cap.masker_python_seed"])))
    for i, there in enumerate(kept):
        assert masked[i] == golden["cap.input_ids"][i][there].tolist()
        assert labels[i] == golden["cap.labels"][i][there].tolist()
