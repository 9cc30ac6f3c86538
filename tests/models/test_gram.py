"""GRAM of the release, whole: the arrays of the released model at tiny sizes, its parameter names, and its
files.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmpt.checkpoints.weights import load_weights
from mmpt.config.schema import Config, DatasetConfig, ModelConfig
from mmpt.losses import AnswerLoss, CaptionLoss, build_loss
from mmpt.models import build_model
from mmpt.models.batching import checkpoint_activations
from mmpt.models.gram import GRAM, stretched
from mmpt.modules.matching import bind_matcher
from tests.conftest import GOLDEN, golden_cases, load_golden
from tests.device_waits import NoReads
from tests.golden_modules import (
    NAMES,
    arrays_below,
    assert_equal_up_to_rounding,
    assert_gradients,
    settings,
    tiny_config,
)

CLS, SEP, MASK, PAD = 1, 2, 3, 0
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
        caps, _ = caption_layout(golden["cap.masked_ids"], golden["in.caption_mask"])
        texts = {"masked_caps": caps, "caption_labels": labels_layout(golden["cap.labels"])}
        loss = CaptionLoss(conditions=golden["cap.subtasks"].tolist())
        value = loss(**batch, **texts, word_logits=case.model(**batch)["word_logits"])
        assert_equal_up_to_rounding(value, golden["cap.loss_cap"])
        value.backward()
        for x, key in ("v", "vision_pixels"), ("a", "audio_spectrograms"), ("d", "depth_pixels"):
            if x in case.letters:
                gradient = batch[f"{NAMES[x]}_feats"].grad
                expected = golden[f"cap.grad_in.{key}"]
                found = torch.zeros(expected.shape) if gradient is None else gradient
                assert_equal_up_to_rounding(found, expected)

    def test_golden_release_gram_e2e_written_captions(self, case):
        items = case.model.encode(**case.without_captions())
        prompt = torch.full((len(case.golden["in.caption_ids"]), 1), CLS)
        written = case.model.generate(
            items, case.settings["subtask"], prompt, MASK, SEP, max_new=8, num_beams=3, length_penalty=0.6
        )
        assert words(written) == words(case.golden["cap.generated_ids"])

    def test_golden_release_gram_e2e_answering_loss(self, case):
        golden = case.golden
        answer = caption_layout(golden["qa.masked_answer_ids"], golden["qa.answer_mask"])
        question = caption_layout(golden["qa.question_ids"], golden["qa.question_mask"])
        texts = dict(zip(("masked_answers", "answer_cmasks"), answer, strict=True))
        texts |= dict(zip(("question_caps", "question_cmasks"), question, strict=True))
        loss = AnswerLoss(conditions=[case.settings["subtask"]])
        words = case.model(**case.batch())["word_logits"]
        value = loss(**texts, answer_labels=labels_layout(golden["qa.answer_labels"]), word_logits=words)
        assert_equal_up_to_rounding(value, golden["qa.loss_qa"])

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


TINY_VISION = {
    "image_size": 8,
    "patch_size": 4,
    "width": 16,
    "head_width": 8,
    "layers": 1,
    "mlp_ratio": 2.5,
    "embed_dim": 10,
}
TINY_SOUND = {
    "input_patch_size": 4,
    "embed_dim": 8,
    "encoder_layers": 1,
    "encoder_embed_dim": 12,
    "encoder_ffn_embed_dim": 16,
    "encoder_attention_heads": 2,
    "conv_pos": 4,
    "conv_pos_groups": 2,
}


@pytest.fixture
def make_tiny(make_config):
    """`make_tiny(vision sizes, **model keys)`: a small GRAM of video, audio and subtitles."""

    def make(vision=(), modalities=(), **model) -> GRAM:
        streams = {
            "video": {"path": "x", "raw": "frames", "size": 8, "max_len": 2},
            "audio": {"path": "x", "raw": "sound", "max_len": 1},
            "subtitle": {"max_len": 8},
        }
        encoders = {
            "video": {"name": "evaclip01_giant", **TINY_VISION, **dict(vision)},
            "audio": {"name": "beats", **TINY_SOUND},
        }
        options = {"contra_dim": 6, "matching_head": True, "encoders": encoders, **model}
        torch.manual_seed(0)
        return build_model(
            make_config("GRAM", {"modalities": {**streams, **dict(modalities)}}, **options)
        ).eval()

    return make


def tiny_batch(frames=2, size=8) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    caps = torch.tensor([[1, 2, 7, 8, 2, 0], [1, 2, 9, 2, 0, 0], [1, 2, 9, 5, 6, 2]])
    subtitle = torch.tensor(
        [[1, 2, 11, 12, 2, 0, 0, 0], [1, 2, 2, 0, 0, 0, 0, 0], [1, 2, 13, 14, 15, 2, 0, 0]]
    )
    return {
        "caps": caps,
        "cmasks": caps != 0,
        "subtitle_caps": subtitle,
        "subtitle_cmasks": subtitle != 0,
        "video_feats": torch.randn(3, frames, 3, size, size, generator=rng),
        "video_masks": torch.ones(3, frames, dtype=torch.bool),
        "audio_feats": torch.randn(3, 1, 16, 8, generator=rng),
        "audio_masks": torch.ones(3, 1, dtype=torch.bool),
        "present": torch.tensor([[True, True, True], [True, True, False], [True, False, True]]),
    }


class TestReleasedFiles:
    def released(self, model: GRAM, tmp_path, **changes):
        """A file as the release saves it: with the dead text tower, and a prefix of parallel training."""
        state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
        dead = {
            "vision_encoder.text.ln_final.weight": torch.ones(3),
            "vision_encoder.logit_scale": torch.ones(()),
        }
        dead["multimodal_encoder.bert.embeddings.position_ids"] = torch.arange(64)[None]
        torch.save(state | dead | changes, tmp_path / "model_step_5.pt")
        return tmp_path / "model_step_5.pt"

    def test_a_released_file_fills_the_model_and_what_is_not_used_is_named(self, make_tiny, tmp_path):
        model, other = make_tiny(), make_tiny()
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter)
        report = load_weights(model, self.released(other, tmp_path))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        unused = "not used by the model: vision_encoder.text, vision_encoder.logit_scale"
        assert not report.missing and report.verdict.endswith(unused)

    def test_older_names_are_understood(self, make_tiny, tmp_path):
        model, other = make_tiny(), make_tiny()
        torch.nn.init.normal_(other.vision_type_embeddings)
        older = {
            name.replace("vision_encoder.", "evaclip_model.").replace("vision_type", "video_type"): tensor
            for name, tensor in other.state_dict().items()
        }
        torch.save(older, tmp_path / "old.pt")
        assert not load_weights(model, tmp_path / "old.pt").unexpected
        assert torch.equal(model.vision_type_embeddings, other.vision_type_embeddings)

    def test_another_image_size_and_number_of_frames_are_resized(self, make_tiny, tmp_path):
        file = self.released(make_tiny(), tmp_path)
        model = make_tiny({"image_size": 12}, {"video": {"path": "x", "max_len": 5}})
        load_weights(model, file)
        assert model(**tiny_batch(5, 12))["pooled_video"].isfinite().all()

    def test_a_file_without_an_encoder_that_is_needed_is_refused(self, make_tiny, tmp_path):
        state = {k: v for k, v in make_tiny().state_dict().items() if not k.startswith("audio_encoder.")}
        torch.save(state, tmp_path / "silent.pt")
        with pytest.raises(ValueError, match=r"silent.pt lacks audio_encoder.* of GRAM"):
            load_weights(make_tiny(), tmp_path / "silent.pt")

    def test_a_head_of_depth_that_the_file_lacks_starts_anew(self, make_tiny, tmp_path):
        file = self.released(make_tiny(), tmp_path)
        depth = {"depth": {"path": "x", "raw": "frames", "size": 8, "max_len": 2}}
        assert load_weights(make_tiny(modalities=depth), file).missing == ["contra_head_d.linear.weight"]


def test_a_missing_modality_changes_nothing_for_the_others(make_tiny):
    model, batch = make_tiny(), tiny_batch()
    expected = model(**batch)
    batch["audio_feats"][2] = 7.0
    found = model(**batch)
    pairs = torch.tensor([0, 1, 2]), torch.tensor([2, 2, 2])
    torch.testing.assert_close(found["matcher"](*pairs), expected["matcher"](*pairs))
    assert found["present"]["audio"].tolist() == [True, True, False]


def test_frozen_encoders_are_not_trained_and_stay_in_evaluation_mode(make_tiny):
    model = make_tiny({"drop_path": 0.5}, frozen=["video"]).train()
    assert not model.vision_encoder["visual"].training and model.audio_encoder.training
    output = model(**tiny_batch())
    output["pooled_video"].sum().backward()
    assert all(p.grad is None for p in model.vision_encoder.parameters())
    assert model.contra_head_v.linear.weight.grad is not None


def test_features_take_the_place_of_an_encoder(make_config):
    modalities = {
        "video": {"path": "x", "width": 5, "max_len": 4},
        "audio": {"path": "x", "width": 7, "max_len": 3},
    }
    model = build_model(
        make_config("GRAM", {"modalities": modalities}, contra_dim=6, matching_head=True)
    ).eval()
    batch = {key: value for key, value in tiny_batch().items() if key in ("caps", "cmasks")}
    batch |= {
        "video_feats": torch.randn(3, 4, 5),
        "video_masks": torch.arange(4) < torch.tensor([[4], [2], [1]]),
    }
    batch |= {"audio_feats": torch.randn(3, 3, 7), "audio_masks": torch.ones(3, 3, dtype=torch.bool)}
    output = model(**batch)
    assert output["pooled_video"].shape == (3, 6)
    torch.testing.assert_close(output["pooled_video"].norm(dim=1), torch.ones(3))


def test_activation_checkpointing_gives_the_same_gradients(make_tiny):
    gradients = []
    for on in (False, True):
        model = make_tiny()
        if on:
            checkpoint_activations(model)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model(**tiny_batch())["pooled_video"].square().sum().backward()
        gradients.append([p.grad for p in model.vision_encoder["visual"].blocks.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_every_parameter_of_the_released_losses_gets_a_gradient(make_tiny):
    """Legacy parallel training sums what there is; heads that only other losses read stay without."""
    model = make_tiny(learnable_temperature=True).train()
    loss = build_loss({"loss_cls": "GRAMLoss", "dam_weight": 0.1, "dim_norm": False})
    loss(**model(**tiny_batch())).backward()
    without = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    joint = {"contra_head_va", "contra_head_vs", "contra_head_vas"}
    unread = {"hidden_trans_subtitle_multimodal", "subtitle_type_embeddings"}
    heads = {
        name
        for name, p in model.named_parameters()
        if p.grad is None and name.startswith(("vision", "multi"))
    }
    assert without - {"vision_encoder", "multimodal_encoder"} == joint | unread
    assert all(".head." in name or ".cls." in name for name in heads)


def test_each_condition_is_contrasted_with_its_own_captions(make_tiny):
    model, batch = make_tiny(), tiny_batch()
    seen, heard = batch["caps"].flip(0), batch["caps"].roll(1, 0)
    own = {"caps_v": seen, "cmasks_v": seen != 0, "caps_a": heard, "cmasks_a": heard != 0}
    output = model(**batch, **own)
    items = model.encode(**{name: x for name, x in batch.items() if name != "cmasks"})
    expected = 0.0
    for letters, caps in {"v": seen, "a": heard, "va": batch["caps"]}.items():
        logits = model.encode_text(caps, caps != 0) @ model.joint_embedding(items, letters).T / 0.07
        there = batch["present"][:, :2][:, ["va".index(x) for x in letters]].all(1)
        logits, target = logits[there][:, there], torch.arange(int(there.sum()))
        both = [cross_entropy(x, target, label_smoothing=0.1) for x in (logits, logits.T)]
        expected = expected + sum(both) / 6
    loss = build_loss({"loss_cls": "VASTLoss", "conditions": ["tv", "at", "tva"]})
    torch.testing.assert_close(loss(**output), expected)
    assert set(loss.terms) == {"tv_nce", "at_nce", "tva_nce"}


def test_the_matching_loss_of_a_condition_reads_its_captions_and_its_modalities(make_tiny):
    model, batch = make_tiny(), tiny_batch()
    heard = batch["caps"].roll(1, 0)
    matchers = model(**batch, caps_a=heard, cmasks_a=heard != 0)["matchers"]
    items = model.encode(**{name: x for name, x in batch.items() if name != "cmasks"})
    for condition, caps in {"ta": heard, "tv": batch["caps"]}.items():
        expected = bind_matcher(model._match_logits, caps, caps != 0, *model.condition(items, condition))
        pairs = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
        torch.testing.assert_close(matchers(condition)(*pairs), expected(*pairs))


def test_captions_are_written_from_each_condition_in_its_own_words(make_tiny):
    model, batch = make_tiny(), tiny_batch()
    heard = batch["caps"].roll(1, 0)
    texts = {"masked_caps": batch["caps"], "caption_labels": batch["caps"].where(batch["caps"] > 4, -100)}
    own = {"masked_caps_a": heard, "cmasks_a": heard != 0, "caption_labels_a": heard.where(heard > 4, -100)}
    words = model(**batch)["word_logits"]

    def loss(*conditions, **given):
        made = build_loss({"loss_cls": "CaptionLoss", "conditions": [*conditions]})
        return made(word_logits=words, **{"cmasks": batch["cmasks"], **texts, **given})

    alone = {"masked_caps": heard, "cmasks": heard != 0, "caption_labels": own["caption_labels_a"]}
    expected = (loss("tv") + loss("ta", **alone)) / 2
    torch.testing.assert_close(loss("tv", "ta", **own), expected)


def test_an_update_that_writes_does_not_wait_for_its_labels(make_tiny, monkeypatch):
    monkeypatch.setattr("mmpt.models.mmgram.may_look", lambda mask: False)
    monkeypatch.setattr("mmpt.losses.loss.Loss.record", lambda loss, **terms: None)  # looks, on the CPU
    model, batch = make_tiny().train(), tiny_batch()
    answers = {"question_caps": batch["subtitle_caps"], "question_cmasks": batch["subtitle_cmasks"]}
    answers |= {"masked_answers": batch["caps"], "answer_cmasks": batch["cmasks"]}
    labels = batch["caps"].where(batch["caps"] > 4, -100)
    text = {"masked_caps": batch["caps"], "cmasks": batch["cmasks"], "caption_labels": labels, **answers}
    counted = {"caption_labels": 7, "answer_labels": 7}
    words = model(**batch)["word_logits"]
    with NoReads():
        sum(
            build_loss({"loss_cls": name, "conditions": ["tv"]})(
                word_logits=words, **text, answer_labels=labels, labelled=counted
            )
            for name in ("CaptionLoss", "AnswerLoss")
        ).backward()


@pytest.mark.parametrize("own", [False, True])
def test_labels_that_were_counted_change_no_loss(make_tiny, own):
    model, batch = make_tiny(), tiny_batch()
    labels, heard = batch["caps"].where(batch["caps"] > 4, -100), batch["caps"].roll(1, 1)
    text = {"masked_caps": batch["caps"], "cmasks": batch["cmasks"], "caption_labels": labels}
    if own:
        few = heard.where(heard > 8, -100)
        text |= {"masked_caps_v": heard, "cmasks_v": batch["cmasks"], "caption_labels_v": few}
    counted = {name: int((x != -100).sum()) for name, x in text.items() if "labels" in name}
    loss = build_loss({"loss_cls": "CaptionLoss", "conditions": ["tv", "ta"]})
    words = model(**batch)["word_logits"]
    expected = loss(word_logits=words, **text)
    assert torch.equal(loss(word_logits=words, **text, labelled=counted), expected)


def test_modalities_that_no_head_joins_are_refused_before_training(make_tiny):
    with pytest.raises(ValueError, match="joint_as"):
        build_loss({"loss_cls": "VASTLoss", "conditions": ["tas"]}).check_model(make_tiny())
    with pytest.raises(ValueError, match="matchers"):
        build_loss({"loss_cls": "VASTLoss", "conditions": ["tv"], "dam_weight": 0.1}).check_model(
            make_tiny(matching_head=False)
        )


@pytest.mark.parametrize(
    "modalities, model, message",
    [
        ({"text": {"path": "x"}}, {}, "names that begin with v .video."),
        ({"voice": {"path": "x"}}, {}, "one each"),
        ({}, {"frozen": ["depth"]}, "model.frozen names depth; there are encoders of text, video, audio"),
        ({}, {"encoders": {"sound": {"name": "beats"}}}, "model.encoders names sound"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_tiny, modalities, model, message):
    with pytest.raises(ValueError, match=message):
        make_tiny(modalities=modalities, **model)


def test_a_condition_of_no_modality_is_refused(make_tiny):
    model = make_tiny()
    items = model.encode(**{k: v for k, v in tiny_batch().items() if k != "cmasks"})
    with pytest.raises(ValueError, match="'tvd'.*first letters of video, audio, subtitle, got d"):
        model.condition(items, "tvd")


@pytest.mark.parametrize("path", golden_cases("release_posembed*.npz"))
def test_golden_release_posembed_of_frames_and_clips(path):
    golden = load_golden(path)
    for name in (key for key in golden if ".in." in key and key.endswith("_frame_embedding")):
        expected = golden[name.replace(".in.", ".out.")]
        assert torch.equal(
            stretched(torch.from_numpy(golden[name]), expected.shape[1]), torch.from_numpy(expected)
        )
