import numpy as np

from mmpt.synthetic.parts import OBJECTS, TOOLS, VERBS, Looks, Step, stream


def test_no_name_belongs_to_two_parts():
    names = [name for part in VERBS + OBJECTS + TOOLS for name in part]
    assert len(names) == len(set(names))
    assert (len(VERBS), len(OBJECTS), len(TOOLS)) == (30, 40, 16)
    assert all(1 <= len(part) <= 3 for part in VERBS + OBJECTS + TOOLS)


def test_looks_are_unit_vectors_and_nearly_orthogonal():
    looks = Looks(0)
    rows = np.concatenate([looks.verbs, looks.objects, looks.tools, looks.scenery, looks.partners])
    gram = rows @ rows.T
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 0.3


def test_an_ingredient_looks_different_in_the_second_role():
    looks = Looks(0)
    assert np.abs((looks.objects * looks.partners).sum(1)).max() < 0.3


def test_swapping_roles_twice_gives_the_step_back_and_tools_stay():
    step = Step(1, 2, 3, partner=True)
    assert step.swapped() == Step(1, 3, 2, partner=True)
    assert step.swapped().swapped() == step
    assert Step(1, 2, 3, partner=False).swapped() == Step(1, 2, 3, partner=False)


def test_streams_differ_by_seed_split_index_and_theme():
    keys = [
        (0, "train", 1, "a"),
        (1, "train", 1, "a"),
        (0, "val", 1, "a"),
        (0, "train", 2, "a"),
        (0, "train", 1, "b"),
    ]
    assert len({stream(*key).random() for key in keys}) == 5
    assert stream(*keys[0]).random() == stream(*keys[0]).random()
