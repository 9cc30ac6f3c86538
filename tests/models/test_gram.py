"""GRAM of the release, whole: the arrays of the released model at tiny sizes, its parameter names, and its
files.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig
from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.models.gram import GRAM
from mmpt.modules.matching import bind_matcher
from tests.conftest import GOLDEN, golden_cases, load_golden
from tests.golden_modules import arrays_below, assert_equal_up_to_rounding, assert_gradients, settings

CLS, SEP, MASK, PAD = 1, 2, 3, 0
NAMES = {"v": "video", "a": "audio", "s": "subtitle", "d": "depth"}
UNUSED = (
    "vision_encoder.text.",
    "vision_encoder.logit_scale",
    "multimodal_encoder.bert.embeddings.position_ids",
)
CASES = golden_cases("release_gram_e2e_*.npz")


def caption_layout(ids: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS] words [SEP] -> [CLS] [SEP] words [SEP], the layout of batches."""
    ids, mask = torch.from_numpy(ids), torch.from_numpy(mask).bool()
    sep = torch.full_like(ids[:, :1], SEP)
    return torch.cat([ids[:, :1], sep, ids[:, 1:]], 1), torch.cat([mask[:, :1], mask[:, :1], mask[:, 1:]], 1)


def labels_layout(labels: np.ndarray) -> torch.Tensor:
    labels = torch.from_numpy(labels)
    return torch.cat([labels[:, :1], torch.full_like(labels[:, :1], -100), labels[:, 1:]], 1)


def tiny_config(folder, state: dict[str, torch.Tensor], letters: str, **model) -> Config:
    """The sizes of a golden file, as a project file would state them."""
    word, layers = (
        "multimodal_encoder.bert.embeddings.word_embeddings.weight",
        "multimodal_encoder.bert.encoder.layer.",
    )
    bert = {
        "model_type": "bert",
        "vocab_size": state[word].shape[0],
        "hidden_size": state[word].shape[1],
        "num_hidden_layers": len({name.split(".")[4] for name in state if name.startswith(layers)}),
        "num_attention_heads": 3,
        "intermediate_size": state[f"{layers}0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": state[
            "multimodal_encoder.bert.embeddings.position_embeddings.weight"
        ].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(bert))
    vision = {
        "image_size": 8,
        "patch_size": 4,
        "width": 16,
        "head_width": 8,
        "layers": 1,
        "mlp_ratio": 2.5,
        "embed_dim": 10,
    }
    audio = {
        "input_patch_size": 4,
        "embed_dim": 8,
        "encoder_layers": 2,
        "encoder_embed_dim": 12,
        "encoder_ffn_embed_dim": 16,
    }
    audio |= {
        "encoder_attention_heads": 2,
        "conv_pos": 4,
        "conv_pos_groups": 2,
        "num_buckets": 8,
        "max_distance": 10,
    }
    audio["layer_wise_gradient_decay_ratio"] = 1.0  # of the golden run
    lengths = {
        "v": state["vision_frame_embedding"].shape[1],
        "a": state["audio_frame_embedding"].shape[1],
        "s": 10,
        "d": 2,
    }
    modalities = {NAMES[x]: {"max_len": lengths[x]} | ({} if x == "s" else {"path": "x"}) for x in letters}
    encoders = {"video": {"name": "evaclip01_giant", **vision}, "audio": {"name": "beats", **audio}}
    options = {
        "contra_dim": state["contra_head_t.linear.weight"].shape[0],
        "matching_head": True,
        "init": "random",
        "encoders": encoders,
    }
    return Config(
        dataset=DatasetConfig(bert_name=str(folder), modalities=modalities, max_video_len=2),
        model=ModelConfig(model_cls="GRAM", **(options | model)),
        eval=EvalConfig(),
    )


def words(ids: np.ndarray | torch.Tensor) -> list[list[int]]:
    """Rows up to their [SEP]."""
    return [row[: row.index(SEP)] if SEP in row else row for row in ids.tolist()]


class Case:
    """A golden file, its model and its batch."""

    def __init__(self, path, folder):
        self.golden = load_golden(path)
        self.settings = settings(self.golden)
        self.state = arrays_below(self.golden, "state")
        self.letters = (
            "va"
            + ("s" if "in.subtitle_ids" in self.golden else "")
            + ("d" if "in.depth_pixels" in self.golden else "")
        )
        self.config = tiny_config(folder, self.state, self.letters)
        self.model: GRAM = build_model(self.config).double().eval()
        state = {
            k: v for k, v in self.model.released_state(self.state).items() if k in self.model.state_dict()
        }
        self.model.load_state_dict(state)  # strictly: nothing may be missing

    @property
    def stretches(self) -> bool:
        """The batch has other numbers of frames or clips than the model; the release stretches their
        embeddings in float32.
        """
        return self.golden["in.vision_pixels"].shape[1] != self.state["vision_frame_embedding"].shape[1]

    def batch(self) -> dict[str, torch.Tensor]:
        golden = self.golden
        caps, cmasks = caption_layout(golden["in.caption_ids"], golden["in.caption_mask"])
        batch = {"caps": caps, "cmasks": cmasks}
        for x, key in ("v", "vision_pixels"), ("a", "audio_spectrograms"), ("d", "depth_pixels"):
            if x in self.letters:
                feats = torch.from_numpy(golden[f"in.{key}"]).requires_grad_()
                batch |= {
                    f"{NAMES[x]}_feats": feats,
                    f"{NAMES[x]}_masks": torch.ones(feats.shape[:2], dtype=torch.bool),
                }
        if "s" in self.letters:
            words = caption_layout(golden["in.subtitle_ids"], golden["in.subtitle_mask"])
            batch |= {"subtitle_caps": words[0], "subtitle_cmasks": words[1]}
        return batch

    def without_captions(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.batch().items() if name not in ("cmasks",)}


@pytest.fixture(scope="module", params=CASES)
def loaded(request, tmp_path_factory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("bert"))


@pytest.fixture
def case(loaded) -> Case:
    loaded.model.zero_grad()
    return loaded


class TestGoldenReleaseGramE2e:
    def test_golden_release_gram_e2e_embeddings(self, case):
        output = case.model(**case.batch())
        for x in "t" + case.letters:
            assert_equal_up_to_rounding(
                output[f"pooled_{({'t': 'text'} | NAMES)[x]}"], case.golden[f"eval.feat_{x}"]
            )
        items = case.model.encode(**case.without_captions())
        for joint in [key.removeprefix("get.feat_") for key in case.golden if key.startswith("get.feat_v")]:
            assert_equal_up_to_rounding(
                case.model.joint_embedding(items, joint), case.golden[f"get.feat_{joint}"]
            )

    def test_golden_release_gram_e2e_tokens_and_conditions(self, case):
        items = case.model.encode(**case.without_captions())
        for x, key in ("v", "vision"), ("a", "audio"), ("d", "depth"):
            if x in case.letters:
                assert_equal_up_to_rounding(items.streams[x].tokens, case.golden[f"get.{key}_output"])
        for key in (key for key in case.golden if "condition_feats_" in key):
            condition, mask = case.model.condition(items, key.rsplit("_", 1)[1])
            assert_equal_up_to_rounding(condition, case.golden[key], 5e-8 if case.stretches else 1e-11)
            assert mask.all() and mask.shape == condition.shape[:2]

    def test_golden_release_gram_e2e_retrieval_losses_and_gradients(self, case, monkeypatch):
        monkeypatch.setattr(
            torch, "multinomial", lambda weights, n, generator: weights.argmax(1, keepdim=True)
        )
        loss = build_loss(
            {
                "loss_cls": "GRAMLoss",
                "gather": "detached",
                "dam_weight": case.settings["itm_ratio"],
                "dim_norm": False,
            }
        )
        batch, model = case.batch(), case.model
        items = model.encode(**{name: value for name, value in batch.items() if name != "cmasks"})
        output = model(**batch)
        condition = model.condition(items, "va")  # that of training, without its dropout
        output["matcher"] = bind_matcher(model._match_logits, batch["caps"], batch["cmasks"], *condition)
        total = loss(**output)
        assert_equal_up_to_rounding(loss.terms["a2d"] + loss.terms["d2a"], case.golden["ret.loss_area"])
        assert_equal_up_to_rounding(loss.terms["matching"], case.golden["ret.loss_itm"])
        total.backward()
        for x, key in ("v", "vision_pixels"), ("a", "audio_spectrograms"), ("d", "depth_pixels"):
            if x in case.letters:
                assert_equal_up_to_rounding(
                    batch[f"{NAMES[x]}_feats"].grad, case.golden[f"ret.grad_in.{key}"]
                )
        assert_gradients(case.model, arrays_below(case.golden, "ret.grad"))

    def test_golden_release_gram_e2e_captioning_loss_and_gradients(self, case):
        golden, batch = case.golden, case.batch()
        caps, cmasks = caption_layout(golden["cap.masked_ids"], golden["in.caption_mask"])
        score = case.model(**batch)["word_logits"]
        labels = labels_layout(golden["cap.labels"])
        wanted = labels[labels != -100]
        losses = [
            functional.cross_entropy(score(subset, caps, cmasks, labels), wanted)
            for subset in golden["cap.subtasks"]
        ]
        loss = sum(losses) / len(losses)
        assert_equal_up_to_rounding(loss, golden["cap.loss_cap"])
        loss.backward()
        for x, key in ("v", "vision_pixels"), ("a", "audio_spectrograms"), ("d", "depth_pixels"):
            if x in case.letters:
                gradient = batch[f"{NAMES[x]}_feats"].grad
                expected = golden[f"cap.grad_in.{key}"]
                assert_equal_up_to_rounding(
                    torch.zeros(expected.shape) if gradient is None else gradient, expected
                )

    def test_golden_release_gram_e2e_written_captions(self, case):
        items = case.model.encode(**case.without_captions())
        prompt = torch.full((len(case.golden["in.caption_ids"]), 1), CLS)
        written = case.model.generate(
            items, case.settings["subtask"], prompt, MASK, SEP, max_new=8, num_beams=3, length_penalty=0.6
        )
        assert words(written) == words(case.golden["cap.generated_ids"])

    def test_golden_release_gram_e2e_answering_loss(self, case):
        golden = case.golden
        caps, cmasks = caption_layout(golden["qa.masked_answer_ids"], golden["qa.answer_mask"])
        question = caption_layout(golden["qa.question_ids"], golden["qa.question_mask"])
        labels = labels_layout(golden["qa.answer_labels"])
        score = case.model(**case.batch())["word_logits"]
        logits = score(case.settings["subtask"], caps, cmasks, labels, *question)
        assert_equal_up_to_rounding(
            functional.cross_entropy(logits, labels[labels != -100]), golden["qa.loss_qa"]
        )

    def test_golden_release_gram_e2e_written_answers(self, case):
        golden, per_item = case.golden, torch.from_numpy(case.golden["qa_test.questions_per_item"])
        items = case.model.encode(**case.without_captions()).repeated(per_item)
        question, mask = (torch.from_numpy(golden[f"qa_test.question_{key}"]) for key in ("ids", "mask"))
        prompt = torch.cat([question, torch.full((len(question), 1), CLS)], dim=1)
        options = {"max_new": 10, "question_mask": mask.bool(), "num_beams": 3, "length_penalty": 1.0}
        written = case.model.generate(items, case.settings["subtask"], prompt, MASK, SEP, **options)
        assert words(written) == words(golden["qa_test.generated_ids"])


def full_size(folder) -> Config:
    bert = {"model_type": "bert", "vocab_size": 30522, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(bert))
    modalities = {
        "video": {"path": "x", "max_len": 8},
        "audio": {"path": "x", "max_len": 1},
        "subtitle": {},
        "depth": {"path": "x"},
    }
    encoders = {"video": {"name": "evaclip01_giant"}, "audio": {"name": "beats"}}
    model = ModelConfig(model_cls="GRAM", init="random", matching_head=True, encoders=encoders)
    return Config(
        dataset=DatasetConfig(bert_name=str(folder), modalities=modalities, max_video_len=8), model=model
    )


def test_golden_release_gram_state_names_and_shapes_are_all_known(tmp_path):
    listed = json.loads((GOLDEN / "release_gram_state_names.json").read_text())["full"]
    sizes = {"F_train": 8, "A_train": 1}
    listed = {name: [sizes.get(n, n) for n in shape] for name, shape in listed}
    with torch.device("meta"):
        own = {name: list(value.shape) for name, value in GRAM(full_size(tmp_path)).state_dict().items()}
    assert len(listed) == 1288
    assert own == {name: shape for name, shape in listed.items() if not name.startswith(UNUSED)}
