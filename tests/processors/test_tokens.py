import json

import numpy as np
import pytest

from mmpt.processors import Captions
from mmpt.processors.base import TextProcessor
from mmpt.processors.tokens import SpecialIds, load_tokenizer, pack_captions
from tests.processors.helpers import CONFIG, SPECIAL, WordTokenizer


def test_captions_are_packed_as_the_loop_over_positions_packs_them():
    rng = np.random.default_rng(0)
    texts = [rng.integers(4, 100, n).tolist() for n in (0, 1, 5, 6, 7, 30)]
    counts = np.array([len(text) for text in texts])
    caps, cmasks = pack_captions(
        np.concatenate(texts).astype(int), np.cumsum(counts) - counts, counts, 9, SPECIAL
    )
    for row, mask, text in zip(caps, cmasks, texts, strict=True):
        expected = [1, 2, *text[:6], 2]
        assert row.tolist() == expected + [0] * (9 - len(expected))
        assert mask.tolist() == [True] * len(expected) + [False] * (9 - len(expected))


def test_captions_without_a_single_word_are_packed():
    caps, cmasks = pack_captions(np.zeros(0, int), np.zeros(2, int), np.zeros(2, int), 6, SPECIAL)
    assert caps.tolist() == [[1, 2, 2, 0, 0, 0]] * 2
    assert cmasks.sum() == 6


def test_a_layout_without_room_for_words_is_refused():
    with pytest.raises(ValueError, match="max_len - dataset.max_video_len is 3"):
        pack_captions(np.zeros(0, int), np.zeros(1, int), np.zeros(1, int), 3, SPECIAL)


def test_a_local_tokenizer_folder_needs_no_network(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cut", "the", "onion", "##s"])
    )
    tokenizer = load_tokenizer(str(tmp_path))
    assert SpecialIds.of(tokenizer) == SpecialIds(cls=2, sep=3, pad=0, mask=4, vocab_size=9)
    assert TextProcessor(CONFIG, tokenizer)("Cut the onions") == [5, 6, 7, 8]


def test_a_missing_tokenizer_name_is_explained():
    with pytest.raises(ValueError, match="dataset.bert_name is not set"):
        load_tokenizer(None)


def test_a_tokenizer_that_is_not_there_is_named_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset.bert_name='.*nowhere' is neither .* vocab.txt"):
        load_tokenizer(str(tmp_path / "nowhere"))


def test_a_damaged_file_of_a_tokenizer_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert",}')
    with pytest.raises(FileNotFoundError, match=r"cannot be read \(.*config.json.* is not a valid JSON"):
        load_tokenizer(str(tmp_path))


def test_a_model_without_the_vocabulary_of_its_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        FileNotFoundError, match=r"bert_name='.*' (has no vocabulary|cannot be read .* vocab.txt)"
    ):
        load_tokenizer(str(tmp_path))


def test_text_processors_add_no_special_tokens():
    assert TextProcessor(CONFIG, WordTokenizer())("a bb ccc") == [11, 12, 13]


def test_lists_and_padded_arrays_give_the_same_captions():
    times = {"start": [0.5, 2.0, 9.0], "end": [1.0, 4.0, 9.5]}
    padded = np.array([[5, 6, -1], [-1, -1, -1], [7, 8, 9]])
    lists = Captions.of({**times, "cap": [[5, 6], [], [7, 8, 9]]})
    array = Captions.of({**times, "cap": padded})
    for name in ("start_s", "end_s", "words", "offsets"):
        np.testing.assert_array_equal(getattr(lists, name), getattr(array, name))
    assert [array.ids(i) for i in range(3)] == [[5, 6], [], [7, 8, 9]]


def test_captions_that_begin_after_the_features_end_are_cut():
    captions = Captions.of({"start": [0.0, 5.0, 9.0], "end": [4.0, 12.0, 20.0], "cap": [[5], [6, 7], [8]]})
    assert len(captions.until(9)) == 2
    assert captions.until(9).words.tolist() == [5, 6, 7]
    assert len(captions.until(0)) == 0
    assert captions.until(10) is captions


def test_starts_and_texts_must_be_as_many():
    with pytest.raises(ValueError, match="2 starts, 2 ends and 1 texts"):
        Captions.of({"start": [0, 1], "end": [1, 2], "cap": [[5]]})
