import numpy as np
import pytest

from mmpt.models.linear import chance, fit_ridge, fit_ridge_to_shards
from mmpt.synthetic.vocabulary import WordPiece


def ranks(scores):
    return (scores > np.diag(scores)[:, None]).sum(1)


@pytest.fixture(scope="module")
def clips(world, root):
    """Token ids and features of the clip gallery."""
    tokenize = WordPiece.load(root / "model")
    gallery = world.gallery()
    texts = [tokenize(world.captions(clip.video)[clip.index]) for clip in gallery]
    spans = [clip.video.segments[clip.index] for clip in gallery]
    return texts, [
        world.features(clip.video)[span.start_s : span.end_s]
        for clip, span in zip(gallery, spans, strict=True)
    ]


@pytest.fixture(scope="module")
def ridge(root):
    return fit_ridge_to_shards(
        root / "how2" / "feat", f"{root}/how2/feat/narration.", len(WordPiece.load(root / "model"))
    )


def test_the_weights_solve_the_penalised_normal_equations():
    rng = np.random.default_rng(0)
    texts = [[list(rng.integers(0, 5, size=4)) for _ in range(6)] for _ in range(3)]
    targets = [rng.standard_normal((6, 3)) for _ in texts]
    ridge = fit_ridge(zip(texts, targets, strict=True), 5, penalty=2.0)
    x = np.array([[ids.count(word) for word in range(5)] for video in texts for ids in video], dtype=float)
    y = np.concatenate(targets)
    np.testing.assert_allclose(x.T @ (y - x @ ridge.weights), 2.0 * ridge.weights, atol=1e-9)


def test_word_order_does_not_matter_to_it(ridge):
    np.testing.assert_array_equal(ridge.embed_text([[60, 70, 80]]), ridge.embed_text([[80, 60, 70]]))


def test_it_is_far_above_chance_on_unseen_combinations(ridge, clips):
    order = ranks(ridge.scores(*clips))
    level = chance(len(order))
    assert (
        (order < 1).mean() > 5 * level["R1"]
        and (order < 5).mean() > 4 * level["R5"]
        and np.median(order) + 1 < level["MR"] / 3
    )


def test_shuffled_captions_bring_it_down_to_chance(ridge, clips):
    texts, features = clips
    order = ranks(
        ridge.scores([texts[i] for i in np.random.default_rng(0).permutation(len(texts))], features)
    )
    assert (order < 1).mean() < 0.1


def test_embeddings_have_unit_length(ridge, clips):
    for rows in (ridge.embed_text(clips[0]), ridge.embed_video(clips[1])):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_no_captions_at_all_is_an_error():
    with pytest.raises(ValueError, match="no captions"):
        fit_ridge([], 5)


def test_chance_is_what_guessing_gives():
    order = np.random.default_rng(0).integers(0, 20, size=40000)
    level = chance(20)
    np.testing.assert_allclose(
        [level["R1"], level["R5"], level["R10"]], [(order < k).mean() for k in (1, 5, 10)], atol=0.01
    )
    assert level["MR"] == 10.5 and chance(3)["R5"] == 1.0
