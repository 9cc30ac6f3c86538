"""MMPTModel: loading, encoding, aligning, searching."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.inference.moments import MomentIndex, align_captions
from mmpt.media.video import read_seconds
from mmpt.models import MMPTModel, build_model
from tests.media.media import write_video

WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "cut",
    "the",
    "onion",
    "pour",
    "milk",
    "into",
    "a",
    "pan",
]


class FakeBackbone(nn.Module):
    """Frames -> 24 numbers that depend on colour and time; counts calls."""

    def forward(self, frames):
        means = frames.mean(dim=(2, 3, 4))
        return {"video_embedding": means.repeat(1, 8) * 3}


@pytest.fixture(scope="module")
def project(tmp_path_factory, bert_folder):
    """A YAML with a run folder beside it."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(bert_folder, root / "bert")
    (root / "bert" / "vocab.txt").write_text("\n".join(WORDS + [f"w{i}" for i in range(100 - len(WORDS))]))
    (root / "bert" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    config = {
        "dataset": {
            "bert_name": str(root / "bert"),
            "max_video_len": 8,
            "max_len": 24,
            "train_path": "secret/train.lst",
        },
        "model": {
            "model_cls": "MMFusionSeparate",
            "video_encoder_cls": "MMBertForEncoder",
            "text_encoder_cls": "BertModel",
            "num_hidden_video_layers": 1,
            "init": "random",
        },
        "fairseq": {"checkpoint": {"save_dir": str(root / "run")}},
        "eval": {"save_path": str(root / "run" / "eval")},
    }
    (root / "model.yaml").write_text(json.dumps(config))
    from mmpt.config import load_config

    (root / "run").mkdir()
    torch.manual_seed(3)
    state = build_model(load_config(root / "model.yaml")).state_dict()
    torch.save({"model": {f"mmmodel.{k}": v for k, v in state.items()}}, root / "run" / "checkpoint_best.pt")
    return root


@pytest.fixture(scope="module")
def loaded(project):
    return MMPTModel.from_pretrained(project / "model.yaml", video_encoder=FakeBackbone())


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


def frames(*shape, seed=0):
    return torch.rand(*shape, 4, 8, 8, 3, generator=torch.Generator().manual_seed(seed))


def features(*shape, seed=0):
    return torch.randn(*shape, 24, generator=torch.Generator().manual_seed(seed))


def test_published_notebook_call_runs_for_any_batch(loaded):
    model, tokenizer, aligner = loaded
    caps, cmasks = aligner.build_text(
        tokenizer("pour the milk into a pan", add_special_tokens=False)["input_ids"]
    )
    for batch in (1, 3):
        output = model(
            frames(batch, 2), caps[None].expand(batch, -1), cmasks[None].expand(batch, -1), return_score=True
        )
        assert output["score"].shape == (batch,) and output["score"].isfinite().all()


def test_score_is_the_similarity_of_the_two_encodings(loaded):
    model, _, aligner = loaded
    video, text = frames(2, 3), ["cut the onion", "pour the milk"]
    caps, cmasks = aligner.pack(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        score = model(video, caps, cmasks, return_score=True)["score"]
    expected = model.similarity(model.encode_text(text), model.encode_video(video)).diagonal()
    torch.testing.assert_close(score, expected)


def test_backbone_features_are_normalised_unless_asked_otherwise(model):
    assert torch.allclose(model.features(frames(1, 2)).norm(dim=-1), torch.ones(1, 2))
    plain = MMPTModel(model.fusion, model.tokenizer, model.aligner, FakeBackbone(), normalize=False)
    assert not torch.allclose(plain.features(frames(1, 2)).norm(dim=-1), torch.ones(1, 2))


def test_integer_frames_equal_scaled_float_frames(model):
    integer = (frames(1, 2) * 255).to(torch.uint8)
    torch.testing.assert_close(model.features(integer), model.features(integer.float() / 255))


@pytest.mark.parametrize("video", [255 * frames(1, 1), frames(1, 1) - 1, torch.randn(1, 2, 3, 16, 16, 3)])
def test_floats_beyond_the_range_of_pixels_give_one_warning(model, video):
    with pytest.warns(UserWarning, match=r"expected frames of type uint8 or floats in \[0, 1\]") as warned:
        assert model.features(video).isfinite().all()
    assert len(warned) == 1


def test_a_tensor_that_is_neither_frames_nor_features_is_refused(model):
    with pytest.raises(ValueError, match="got"):
        model.features(torch.zeros(2, 24))


def test_the_names_that_papers_print_are_those_of_network_and_text_packing(model):
    assert model.model is model.fusion
    for printed, ours in zip(
        model.aligner._build_text_seq([5, 6]), model.aligner.build_text([5, 6]), strict=True
    ):
        assert torch.equal(printed, ours)


def test_channels_first_frames_are_refused(model):
    with pytest.raises(ValueError, match=r"\(B, T, FPS, H, W, 3\)"):
        model.features(frames(1, 2).movedim(-1, 2))


def test_long_video_is_the_mean_of_its_windows_weighted_by_seconds(model):
    video = features(19)
    vectors, windows = model.encode_windows(video)
    assert windows.tolist() == [[0, 8], [8, 16], [16, 19]]
    expected = (8 * vectors[0] + 8 * vectors[1] + 3 * vectors[2]) / 19
    torch.testing.assert_close(model.encode_video(video)[0], expected)


def test_forward_of_a_long_video_agrees_with_encode_video(loaded):
    model, _, aligner = loaded
    caps, cmasks = aligner.pack([[5, 6, 7], [8, 6, 9]])
    video = features(2, 11)
    with torch.no_grad():
        output = model(video, caps, cmasks)
    torch.testing.assert_close(output["pooled_video"], model.encode_video(video))
    assert output["video_outputs"].shape == (2, 20, 32) and output["video_mask_outputs"].shape == (2, 20)


def test_videos_are_taken_as_tensor_array_file_and_list(model, tmp_path):
    video = features(5)
    np.save(tmp_path / "v.npy", video.numpy().astype(np.float32))
    expected = model.encode_video(video)
    for given in (video.numpy(), video[None], tmp_path / "v.npy", str(tmp_path / "v.npy")):
        torch.testing.assert_close(model.encode_video(given), expected)
    several = model.encode_video([video, features(11, seed=1), tmp_path / "v.npy"])
    assert several.shape == (3, 32)
    torch.testing.assert_close(several[2], expected[0])


def test_video_file_is_read_second_by_second(model, tmp_path):
    pytest.importorskip("av")
    path = write_video(tmp_path / "v.mp4", range(0, 2500, 100), shade=lambda i: 9 * i)
    seconds = torch.from_numpy(np.concatenate(list(read_seconds(path))))
    assert seconds.shape == (3, 30, 224, 224, 3)
    torch.testing.assert_close(model.encode_video(path), model.encode_video(seconds))
    vectors, windows = model.encode_windows(str(path), window_s=2)
    assert windows.tolist() == [[0, 2], [2, 3]] and vectors.shape == (2, 32)


def test_damaged_features_are_refused(model):
    with pytest.raises(ValueError, match="not finite"):
        model.encode_video(torch.full((3, 24), float("nan")))


def test_encoding_text_does_not_depend_on_the_batch(model, monkeypatch):
    sentences = ["cut the onion", "pour", "pour the milk into a pan"] * 2
    expected = torch.cat([model.encode_text(s) for s in sentences])
    monkeypatch.setattr("mmpt.inference.mmpt_model.CLIPS_PER_STEP", 4)
    torch.testing.assert_close(model.encode_text(sentences), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode_text([]), "no sentences"),
        (lambda model: model.encode_video([]), "no videos"),
        (lambda model: model.encode_video(features(0)), "without seconds"),
        (lambda model: model.encode_video(frames(0)), "without seconds"),
        (lambda model: model.encode_video(torch.rand(3, 25)), "25 numbers per second, the model reads 24"),
        (lambda model: model.encode_windows(features(3), window_s=0), "window_s=0"),
        (lambda model: model.encode_windows(features(3), stride_s=0), "stride=0"),
        (lambda model: model.align(features(3), ["pour"], epsilon=0), "epsilon=0 must be positive"),
        (
            lambda model: model(
                features(2, 3), torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool)
            ),
            "2 videos with 3",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_feature_file_that_is_none_is_named(model, content, tmp_path):
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(ValueError, match="v.npy: not a .npy file of features"):
        model.encode_video(tmp_path / "v.npy")


def test_an_unknown_backbone_lists_the_known_ones(project):
    with pytest.raises(ValueError, match="'resnet'; known: .*image:<hub id or folder>, .*s3d"):
        MMPTModel.from_pretrained(project / "model.yaml", video_encoder="resnet")


def test_folder_round_trip_gives_the_same_vectors_without_private_paths(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    again, _, _ = MMPTModel.from_pretrained(tmp_path / "saved", video_encoder=None)
    assert torch.equal(again.encode_text("cut the onion"), model.encode_text("cut the onion"))
    assert torch.equal(again.encode_video(features(9)), model.encode_video(features(9)))
    assert "secret" not in (tmp_path / "saved" / "config.yaml").read_text()
    assert "MMFusionSeparate" in (tmp_path / "saved" / "README.md").read_text()


def test_absent_checkpoint_lists_where_it_was_looked_for(project):
    with pytest.raises(FileNotFoundError, match=r"checkpoint_7\.pt.*run.eval.checkpoint_7\.pt"):
        MMPTModel.from_pretrained(project / "model.yaml", checkpoint="checkpoint_7.pt", video_encoder=None)


def test_absent_s3d_weights_name_the_cure(project):
    with pytest.raises(FileNotFoundError, match="s3d.pth.*video_encoder=None"):
        MMPTModel.from_pretrained(project / "model.yaml", video_weights=project / "s3d.pth")


def test_model_without_backbone_says_so(project):
    model, _, _ = MMPTModel.from_pretrained(project / "model.yaml", video_encoder=None)
    with pytest.raises(ValueError, match="video_encoder=None"):
        model.encode_video(frames(1, 2))


def test_unknown_source_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="neither a YAML file, a folder, nor a hub id"):
        MMPTModel.from_pretrained("nobody/nothing", video_encoder=None)
    with pytest.raises(FileNotFoundError, match=r"no config\.yaml"):
        MMPTModel.from_pretrained(tmp_path, video_encoder=None)


def test_search_finds_the_moment_with_the_greatest_similarity(model):
    videos = {"a": features(9), "b": features(20, seed=1)}
    index = model.index(videos, window_s=4)
    found = model.search(index, "pour the milk", k=3)
    scores = {
        vid: model.similarity(model.encode_text("pour the milk"), model.encode_windows(v, 4)[0])[0]
        for vid, v in videos.items()
    }
    best = max(scores, key=lambda vid: scores[vid].max())
    assert (found[0].video_id, found[0].start_s) == (best, 4.0 * int(scores[best].argmax()))
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True) and len(found) == 3


def test_align_returns_plan_path_and_times(model):
    captions = ["cut the onion", "pour the milk", "into a pan"]
    result = model.align(features(18), captions, window_s=3)
    assert result.windows.tolist()[0] == [0, 3] and result.windows.tolist()[-1] == [15, 18]
    torch.testing.assert_close(result.plan.sum(), torch.tensor(1.0))
    spans = list(result.spans())
    assert [caption for caption, _, _ in spans] == captions and spans[0][1] == 0 and spans[-1][2] == 18


def test_aligned_captions_follow_planted_order():
    basis = torch.eye(4)
    windows = torch.tensor([[i, i + 1] for i in range(6)]).float()
    result = align_captions(["a", "b", "c"], basis[:3], basis[[0, 0, 1, 1, 1, 2]], windows)
    assert [(start, end) for _, start, end in result.spans()] == [(0, 2), (2, 5), (5, 6)]
    assert result.plan.argmax(dim=0).tolist() == [0, 0, 1, 1, 1, 2]


def test_relaxed_alignment_leaves_out_captions_that_a_part_of_a_video_does_not_show():
    basis = torch.eye(5)
    windows = torch.tensor([[i, i + 1] for i in range(3)]).float()
    part = basis[[1, 1, 2]]
    relaxed = align_captions(["a", "b", "c", "d", "e"], basis, part, windows, relaxed=True)
    assert list(relaxed.spans()) == [("b", 0, 2), ("c", 2, 3)]
    strict = align_captions(["a", "b", "c", "d", "e"], basis, part, windows)
    assert len(list(strict.spans())) == 5


def test_search_shows_overlapping_windows_once():
    windows = np.array([[0, 4], [2, 6], [4, 8], [0, 4]], dtype=float)
    index = MomentIndex(np.array(["a", "a", "a", "b"]), windows, np.array([[3.0], [4.0], [2.0], [1.0]]))
    assert [(m.video_id, m.start_s) for m in index.search(np.ones(1), k=4)] == [("a", 2), ("b", 0)]


def test_index_leaves_out_a_video_that_cannot_be_used_where_told_to(model):
    videos, failed = {"good": features(9), "bad": torch.full((3, 24), float("nan"))}, {}
    index = model.index(videos, on_failure=lambda video_id, error: failed.update({video_id: str(error)}))
    assert set(index.video_ids) == {"good"} and "not finite" in failed["bad"]
    with pytest.raises(ValueError, match="not finite"):
        model.index(videos)


def test_folder_is_encoded_video_by_video(model, tmp_path):
    for name, seed in (("b", 1), ("a", 0)):
        np.save(tmp_path / f"{name}.npy", features(5, seed=seed).numpy())
    np.save(tmp_path / "bad.npy", np.full((3, 24), np.nan, np.float32))
    failed, seen = {}, []
    track, note = (
        lambda ids: seen.extend(ids) or ids,
        lambda video_id, error: failed.update({video_id: str(error)}),
    )
    stream = model.encode_folder(tmp_path, track, note)
    first = next(stream)
    assert first[0] == "a" and first[1].shape == (32,) and seen == ["a", "b", "bad"] and not failed
    assert [video_id for video_id, _ in stream] == ["b"] and "not finite" in failed["bad"]
    with pytest.raises(ValueError, match="not finite"):
        list(model.encode_folder(tmp_path, iter))


def test_folder_without_videos_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no files found"):
        model.index(tmp_path)


def test_vectors_come_as_arrays_where_asked(model):
    text, video = (
        model.encode_text(["cut the onion", "pour"], numpy=True),
        model.encode_video(features(3, 5), numpy=True),
    )
    assert text.dtype == video.dtype == np.float32 and model.similarity(text, video).shape == (2, 3)
    np.testing.assert_allclose(video, model.encode_video(features(3, 5)).numpy())
