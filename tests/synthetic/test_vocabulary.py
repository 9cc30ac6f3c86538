import pytest

from mmpt.synthetic.vocabulary import SPECIALS, WordPiece, build_vocabulary


def test_the_vocabulary_follows_its_rule():
    vocabulary = build_vocabulary(["b aa aa ccc", "ccc b dd aa"])
    assert vocabulary[:5] == list(SPECIALS)
    assert vocabulary[5:8] == ["0", "1", "2"] and vocabulary[15] == "a" and vocabulary[41] == "##0"
    assert vocabulary[-2:] == ["aa", "ccc"]  # counts 3 and 2; "dd" is seen once, "b" is a character


def test_equal_counts_are_in_alphabetical_order_whatever_the_order_of_the_texts():
    texts = ["zz yy xx", "xx yy zz"]
    assert build_vocabulary(texts) == build_vocabulary(texts[::-1])
    assert build_vocabulary(texts)[-3:] == ["xx", "yy", "zz"]


def test_longest_pieces_come_first_and_unknown_characters_make_the_word_unknown():
    tokenize = WordPiece([*SPECIALS, "a", "b", "##a", "##b", "ab"])
    assert tokenize("ab aba bb b?b") == [9, 9, 7, 6, 8, 1]


@pytest.fixture(scope="module")
def tokenizer(root):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(root / "model"))


def test_transformers_reads_the_same_ids(world, root, tokenizer):
    tokenize = WordPiece.load(root / "model")
    texts = [text for video in world.videos("test") for text in world.captions(video)]
    texts += [sentence.text for sentence in world.narration(world.video("val", 0))] + [
        "zymurgy of quixotic onions"
    ]
    assert tokenizer(texts, add_special_tokens=False)["input_ids"] == [tokenize(text) for text in texts]
    assert len(tokenizer) == len(tokenize)


def test_special_tokens_are_known(tokenizer):
    special = (
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
    )
    assert special == (0, 1, 2, 3, 4)


def test_no_test_caption_holds_an_unknown_word(world, root):
    tokenize = WordPiece.load(root / "model")
    unknown = tokenize.ids["[UNK]"]
    assert not any(
        unknown in tokenize(text) for video in world.videos("test") for text in world.captions(video)
    )


def test_transformers_builds_a_small_bert_from_the_folder(root):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(str(root / "model"))
    assert isinstance(config, transformers.BertConfig)
    assert (config.hidden_size, config.num_hidden_layers, config.input_dim, config.hidden_dropout_prob) == (
        128,
        2,
        512,
        0.1,
    )
    assert config.vocab_size == len(WordPiece.load(root / "model"))
