import pytest

from mmpt.synthetic.settings import NOISE, SIZES, Settings


def test_every_knob_has_a_meaning():
    for group in (NOISE["moderate"], SIZES["main"]):
        for field in group.__dataclass_fields__.values():
            assert field.metadata["help"], field.name


def test_each_setting_is_noisier_than_the_one_before_in_every_narration_knob():
    for name in ("p_chatter", "p_silent", "offset_s", "p_word", "p_filler", "p_false_start"):
        assert (
            getattr(NOISE["clean"], name) < getattr(NOISE["moderate"], name) < getattr(NOISE["heavy"], name)
        ), name


def test_the_fingerprint_depends_on_every_setting():
    base = Settings()
    others = [
        Settings(seed=1),
        Settings(size=SIZES["tiny"]),
        Settings(noise=NOISE["heavy"]),
        base.with_knobs({"w_who": 0.1}),
    ]
    assert len({settings.fingerprint() for settings in (base, *others)}) == 5
    assert Settings().fingerprint() == base.fingerprint()


def test_knobs_reach_noise_size_and_world():
    settings = Settings().with_knobs({"p_silent": 0.9, "train_videos": 7, "p_partner": 0.0})
    assert (settings.noise.p_silent, settings.size.train_videos, settings.p_partner) == (0.9, 7, 0.0)


def test_an_unknown_knob_is_named():
    with pytest.raises(ValueError, match="knob.p_silnt: unknown key. Did you mean knob.p_silent"):
        Settings().with_knobs({"p_silnt": 0.1})


@pytest.mark.parametrize(
    "name, value", [("p_silent", 1.2), ("p_chatter", 1.0), ("w_noise", -1), ("visible_verb", 3), ("tasks", 0)]
)
def test_a_knob_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Settings().with_knobs({name: value})
