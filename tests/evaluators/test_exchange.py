"""Records in the formats of others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmpt.evaluators import exchange, records
from mmpt_cli.results import main


@pytest.fixture
def record(tmp_path):
    per_query = {"small towers": {"vtt": {"ranks": np.array([1.0, 1.0, 2.0, 7.0, 30.0])}}}
    about = {
        "protocol": {"gallery_sha256": {"vtt": "ab" * 32}},
        "weights": {"small towers": {"sha256": "cd" * 32}},
    }
    return records.write_record(tmp_path / "toy", {"T": [["model"], ["x"]]}, per_query, {}, about)


def printed(capsys, *words):
    main(list(map(str, words)))
    return json.loads(capsys.readouterr().out)


def test_what_is_exported_to_mteb_is_read_back(record, tmp_path, capsys):
    made = printed(capsys, record, "--row", "small towers", "--export", "mteb")["vtt"]
    gain = np.mean([1, 1, 1 / np.log2(3), 1 / np.log2(8), 0])
    assert made["scores"]["test"][0]["ndcg_at_10"] == pytest.approx(gain)
    (tmp_path / "MSRVTTT2V.json").write_text(json.dumps(made))
    assert exchange.read_mteb(tmp_path / "MSRVTTT2V.json") == {"R1": 0.4, "R5": 0.6, "R10": 0.8}
    main([str(record), "--test", "vtt", "--mteb", str(tmp_path / "MSRVTTT2V.json"), "--gallery", "879"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["small", "towers", "5", "40.0", "60.0", "80.0"],
        ["MSRVTTT2V", "879", "40.0", "60.0", "80.0"],
    ]


def test_a_model_card_and_every_eval_ever_state_score_interval_and_gallery(record, capsys):
    words = (record, "--row", "small towers", "--name", "me/model", "--export")
    (result,) = printed(capsys, *words, "model-index")["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "recall_at_1", "value": 0.4}
    assert result["dataset"]["args"] == {"gallery": 5}
    made = printed(capsys, *words, "every-eval-ever")
    first = made["evaluation_results"][0]["score_details"]
    assert made["model_info"]["name"] == "me/model" and first["score"] == 0.4
    details = made["model_info"]["additional_details"]
    assert details["deployment_type"] == "self_deployed" and details["weights_sha256"] == "cd" * 32
    bounds = first["uncertainty"]["confidence_interval"]
    assert bounds["lower"] <= 0.4 <= bounds["upper"]


def test_other_files_and_rows_are_named(record, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a non-empty JSON dict, got list"):
        exchange.read_mteb(tmp_path / "x.json")
    with pytest.raises(ValueError, match="no row 'big'; it has small towers"):
        main([str(record), "--row", "big", "--export", "mteb"])
