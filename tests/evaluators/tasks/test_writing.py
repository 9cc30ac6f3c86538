"""Captions and answers that GRAM writes about clips in files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.config import EvalConfig
from mmpt.config.schema import Config, DatasetConfig, ModelConfig
from mmpt.datasets import build_dataset
from mmpt.evaluators import AnswerMetric, AnswerPredictor, CaptionPredictor, GramPredictor, NLGMetric
from mmpt.models import build_model
from mmpt.processors.tokens import load_tokenizer
from mmpt.synthetic.clips import BAR_QUESTION, COLOUR_QUESTION
from mmpt_cli.make_clips import main

pytest.importorskip("av")
VISION = {"image_size": 8, "patch_size": 4, "width": 16, "head_width": 8, "layers": 1, "mlp_ratio": 2.0}
SOUND = {"embed_dim": 8, "encoder_layers": 1, "encoder_embed_dim": 12, "encoder_ffn_embed_dim": 16}
SOUND |= {"encoder_attention_heads": 2, "conv_pos": 4, "conv_pos_groups": 2}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    main(["--out", str(folder), "--videos", "12", "--seconds", "2"])
    return folder


@pytest.fixture
def config(clips):
    return Config(
        dataset=DatasetConfig(
            meta_processor="ModalityMetaProcessor",
            video_processor="ModalityVideoProcessor",
            text_processor="ModalityTextProcessor",
            aligner="ModalityAligner",
            bert_name=str(clips / "model"),
            test_path=str(clips / "val.json"),
            on_missing="mask",
            max_video_len=2,
            max_len=14,
            modalities={
                "video": {"path": str(clips), "raw": "frames", "size": 8, "max_len": 2},
                "audio": {"path": str(clips), "raw": "sound", "slice_frames": 64, "max_len": 1},
            },
        ),
        model=ModelConfig(
            model_cls="GRAM",
            init="random",
            contra_dim=8,
            matching_head=True,
            encoders={"video": {"name": "evaclip01_giant", **VISION}, "audio": {"name": "beats", **SOUND}},
        ),
        eval=EvalConfig(modalities=["tv", "tva"], rerank=2, bootstrap=0),
        gen_param={"num_beams": 2, "max_new": 3},
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return build_model(config)


def run(predictor_cls, config, model):
    data = build_dataset(config, "test")
    loader = DataLoader(data, 2, collate_fn=data.collate)
    return predictor_cls(config, load_tokenizer(config.dataset.bert_name))(loader, model)


def test_captions_are_written_for_every_item_and_scored_with_all_references(config, model):
    arrays = run(CaptionPredictor, config, model)
    assert arrays["ids"] == ["val/val000", "val/val001", "val/val002"]
    assert all(len(lines.split("\n")) == 2 and "bar" in lines for lines in arrays["refs"])
    assert "CIDEr" in NLGMetric(config.eval).evaluate(**arrays).values


def test_several_captions_of_an_item_are_drawn_whatever_the_batch_and_kept_by_its_name(config, model):
    drawing = replace(config, gen_param={"draws": 3, "max_new": 4})
    data = build_dataset(drawing, "test")
    predictor = CaptionPredictor(drawing, load_tokenizer(config.dataset.bert_name))
    arrays, alone = (predictor(DataLoader(data, n, collate_fn=data.collate), model) for n in (2, 1))
    assert arrays["drawn"] == alone["drawn"] and len(set(arrays["drawn"])) > 1
    files = NLGMetric(config.eval).files(**arrays)
    assert {name: len(texts) for name, texts in files["captions.json"].items()} == dict.fromkeys(
        ("val/val000", "val/val001", "val/val002"), 3
    )
    assert files["captions.json"]["val/val001"][0] == arrays["hyps"][1]


def test_every_question_of_an_item_is_answered(config, model, clips):
    dataset = replace(config.dataset, test_path=str(clips / "val_questions.json"))
    arrays = run(AnswerPredictor, replace(config, dataset=dataset), model)
    assert arrays["questions"] == [COLOUR_QUESTION, BAR_QUESTION] * 3
    assert len(arrays["written"]) == len(arrays["answers"]) == 6
    assert AnswerMetric(config.eval).evaluate(**arrays).values["acc"] == 0


def test_questions_are_needed_to_answer(config, model):
    with pytest.raises(ValueError, match="rows of dataset.test_path need question and answer"):
        run(AnswerPredictor, config, model)


def test_an_answer_counts_where_it_is_one_of_the_right_ones():
    metric = AnswerMetric(EvalConfig(bootstrap=0))
    result = metric.evaluate(["it rises", "red", "no"], ["up\nit rises", "blue", "no"])
    assert result.values["acc"] == pytest.approx(2 / 3)


def test_retrieval_reranks_with_the_matching_head_on_the_same_model(config, model):
    arrays = run(GramPredictor, config, model)
    assert arrays["pooled_text"].shape == (6, 8) and arrays["match_items_prob"].shape == (6, 2)
    assert (arrays["match_items_prob"] > 0).all() and (arrays["match_items_prob"] < 1).all()
