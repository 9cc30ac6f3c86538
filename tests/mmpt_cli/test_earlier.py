"""Command lines of the releases' pages, and the lines that they become."""

import dataclasses
import json
import runpy
import sys

import pytest

from mmpt.config import ConfigError, load_config
from mmpt.utils import load_plain_pickle
from mmpt_cli import earlier
from mmpt_cli.features import parser as features_parser
from mmpt_cli.predict import parser as predict_parser
from mmpt_cli.shards import parser as shards_parser
from tests.conftest import ROOT

PARSERS = {"features": features_parser, "shards": shards_parser, "predict": predict_parser}


@pytest.fixture
def parsed(monkeypatch):
    """What the verbs are asked to do, parsed, instead of doing it; from the checkout."""
    monkeypatch.chdir(ROOT)
    found = []
    monkeypatch.setattr(
        earlier, "load", lambda verb: lambda words: found.append(PARSERS[verb]().parse_args(words))
    )
    return found


def test_the_released_extraction_is_a_run_for_each_folder_of_videos(parsed, capsys):
    line = "--vdir a,b --fdir f --type=s3d --num_decoding_thread=4 --batch_size 32 --half_precision 1"
    assert earlier.extract(line.split()) == 0
    assert [str(args.files) for args in parsed] == ["a", "b"]
    for args in parsed:
        assert (str(args.features), args.backbone, args.dtype, args.normalize) == (
            "f",
            "s3d",
            "float16",
            True,
        )
        assert (str(args.weights), args.threads, args.batch_size) == (earlier.S3D_WEIGHTS, 4, 32)
    assert "the same as: mmpt features video a f" in capsys.readouterr().out
    earlier.extract("--vdir=a --fdir f --half_precision 0 --l2_normalize 0".split())
    assert (parsed[-1].dtype, parsed[-1].normalize) == ("float32", False)


@pytest.mark.parametrize("words, named", [("--type 2d", "--backbone image:"), ("--hflip 1", "leave it out")])
def test_what_of_the_released_extraction_is_not_here_names_the_way(parsed, capsys, words, named):
    with pytest.raises(SystemExit, match="2"):
        earlier.extract(["--vdir", "a", "--fdir", "f", *words.split()])
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], [earlier.SHARDS]])
def test_shard_feature_without_arguments_builds_both_splits(parsed, words):
    assert earlier.shard_feature(words) == 0
    assert [args.split for args in parsed] == ["train", "valid"]
    assert {str(args.target) for args in parsed} == {"data/feat/feat_how2_s3d_shard_small"}


def test_a_yaml_for_shards_that_lacks_folders_names_them(parsed):
    with pytest.raises(ConfigError, match="needs dataset.vfeat_dir"):
        earlier.shard_feature(["scripts/text_token_extractor/configs/bert-base-uncased.yaml"])


def test_the_configuration_of_pretokenization_is_shipped():
    said = load_config(ROOT / "scripts/text_token_extractor/configs/bert-base-uncased.yaml").dataset
    assert said.bert_name == "bert-base-uncased" and said.caption_pkl_path and said.target_dir


@pytest.mark.parametrize("flag", [[], ["--taskconfig"]])
def test_htm_align_reads_the_released_file_with_what_its_script_added(parsed, flag):
    assert earlier.zeroshot_align([*flag, "projects/retri/norton/test_how2align_zs.yaml", "--untrained"]) == 0
    (args,) = parsed
    ours = load_config(earlier.HTM_ALIGN)
    assert load_config(args.config, args.overrides) == dataclasses.replace(ours, source=args.config)
    earlier.zeroshot_align([*flag, earlier.HTM_ALIGN])
    assert parsed[-1].overrides == []


def test_the_dedup_module_writes_the_pickle_of_pre_training(tmp_path, monkeypatch):
    said = {"v": {"start": [0, 2], "end": [3, 5], "text": ["now chop the", "chop the onion"]}}
    (tmp_path / "raw_caption.json").write_text(json.dumps(said))
    monkeypatch.setattr(sys, "argv", ["dedupprocessor", "--how2dir", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mmpt.processors.dedupprocessor", raising=False)
    runpy.run_module("mmpt.processors.dedupprocessor", run_name="__main__")
    clips = json.loads(load_plain_pickle(tmp_path / "raw_caption_dedup.pkl")["v"])
    assert sorted(" ".join(clips["text"]).split()) == ["chop", "now", "onion", "the"]
