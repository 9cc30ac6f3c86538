"""Own runs against the published protocol."""

import pytest

from mmpt.config import load_config
from mmpt.config.rundir import to_dict
from mmpt.evaluators.published import departures, same_size
from tests.conftest import ROOT

FACTS = {"queries": 3350, "gallery": 3350}


def settings(name, *overrides):
    return to_dict(load_config(ROOT / "projects" / f"{name}.yaml", overrides))


def test_the_published_size_is_recognised_with_its_source():
    assert "MIL-NCE" in same_size(settings("retri/norton/test_youcook_zs"), FACTS).source
    assert same_size(settings("retri/norton/test_youcook_zs"), FACTS | {"gallery": 3000}) is None


def test_a_papers_file_differs_in_nothing():
    assert departures(settings("retri/norton/test_youcook_zs"), FACTS) == []


def test_counts_and_settings_that_differ_are_listed():
    found = departures(
        settings("retri/norton/test_youcook_zs", "dataset.max_video_len=8", "eval.compat=false"),
        FACTS | {"queries": 3000},
    )
    assert [text.split(":")[0] for text in found] == ["test set", "dataset.max_video_len", "eval.compat"]
    assert (
        "3000 against a gallery of 3350; published: 3350 of 436 videos" in found[0]
        and "or 3492 of 457" in found[0]
    )


def test_metrics_over_videos_are_compared_by_videos():
    assert departures(settings("retri/norton/test_coin_zs"), {"videos": 2797}) == []


def test_full_videos_are_compared_with_436_videos_not_with_their_clips():
    config = settings("retri/norton/test_youcook_fullvideo_zs")
    assert departures(config, {"queries": 436, "gallery": 436}) == []
    assert same_size(config, FACTS) is None


def test_a_test_set_of_several_modalities_is_recognised_by_its_size():
    config = settings("retri/gram/test_anet_zs")
    assert "ActivityNet" in same_size(config, {"queries": 4917, "gallery": 4917}).source
    assert any("test set: 4900" in text for text in departures(config, {"queries": 4900, "gallery": 4900}))


@pytest.mark.parametrize("facts", [{}, {"queries": 5}])
def test_an_unknown_data_set_has_no_counts_to_differ_from(facts):
    assert departures({"metric": "Own", "dataset": {}}, facts) == [] and same_size({}, facts) is None


def test_settings_are_compared_only_on_data_that_numbers_were_published_on():
    config = settings("retri/norton/test_vtt_zs", "dataset.max_video_len=8")
    assert departures(config, {"queries": 1000, "gallery": 1000})
    config["dataset"]["meta_processor"] = "MetaProcessor"
    assert departures(config, {"queries": 1000, "gallery": 1000}) == []
