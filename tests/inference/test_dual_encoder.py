"""Dual encoders of transformers: CLIP, SigLIP, X-CLIP, CLAP without a project file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mmpt.inference import MMPTModel
from mmpt.media.video import read_seconds
from mmpt.processors.dual import text_layout
from mmpt_cli import predict
from mmpt_cli.data import main as data
from tests.dual_models import KINDS, SCALING, dual_folder

pytest.importorskip("av")
SENTENCES = ["a red video", "the blue sea", "a a a a a a a a a a a a a a a"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("dual")
    return {kind: dual_folder(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos with sound, 3 and 4 seconds."""
    root = tmp_path_factory.mktemp("videos")
    data(["clips", "--out", str(root / "made"), "--videos", "4", "--seconds", "3"])
    files = sorted((root / "made" / "train").glob("*.mkv"))[:2]
    assert len(files) == 2
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_encodes_aligns_and_searches_files_and_saves_itself(folders, videos, tmp_path, kind):
    model, _, _ = MMPTModel.from_pretrained(folders[kind])
    text, video = model.encode_text(SENTENCES), model.encode_video(videos)
    assert text.shape == (3, video.shape[1]) and len(video) == 2
    for vectors in (text, video):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))
    assert not torch.allclose(video[0], video[1], atol=1e-4)
    aligned = model.align(videos[0], SENTENCES[:2], window_s=1)
    assert aligned.plan.shape == (2, 3) and len(list(aligned.spans())) == 2
    index = model.index({file.stem: file for file in videos}, window_s=2)
    assert len({moment.video_id for moment in model.search(index, "a red video", k=4)}) == 2
    model.save_pretrained(tmp_path / "saved")
    again, _, _ = MMPTModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.encode_text(SENTENCES), text) and torch.equal(again.encode_video(videos), video)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_are_those_of_transformers(folders, videos, kind):
    model, _, _ = MMPTModel.from_pretrained(folders[kind])
    plain = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    options = {"padding": "max_length", "max_length": 12} if kind == "siglip" else {"padding": True}
    words = tokenizer(SENTENCES, truncation=True, return_tensors="pt", **{"max_length": 12} | options)
    if kind == "siglip":
        words = {"input_ids": words["input_ids"]}
    else:
        words.pop("token_type_ids", None)
    with torch.no_grad():
        expected = plain.get_text_features(**words).pooler_output
        frames = np.concatenate(list(read_seconds(videos[0], 1, 16)))[:, 0]  # one a second
        mean, std = (torch.tensor(SCALING[key]) for key in ("image_mean", "image_std"))
        images = ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)
        each = torch.nn.functional.normalize(
            plain.get_image_features(pixel_values=images).pooler_output, dim=-1
        )
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(model.encode_text(SENTENCES), expected), torch.ones(3))
    torch.testing.assert_close(cosine(model.encode_video(videos[:1]), each.mean(0)[None]), torch.ones(1))


def test_the_vector_of_a_long_video_is_the_mean_of_all_its_seconds(folders):
    model, _, _ = MMPTModel.from_pretrained(folders["clip"], video_encoder=None)
    seconds = torch.nn.functional.normalize(
        torch.randn(75, 6, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    mean = torch.nn.functional.normalize(seconds.mean(0), dim=-1)
    torch.testing.assert_close(model.encode_video(seconds)[0], mean)
    assert model.encode_windows(seconds, window_s=5)[0].shape == (15, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_lacks_a_tensor_is_refused(folders, tmp_path, kind):
    folder = dual_folder(kind, tmp_path / kind)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "text_model" in name and name.endswith("weight"))
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 of .* tensors .*would be random"):
        MMPTModel.from_pretrained(folder)


def test_words_stand_where_the_tokenizer_would_put_them(folders):
    for kind in KINDS:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
        layout = text_layout(str(folders[kind]))
        bare = tokenizer(SENTENCES, add_special_tokens=False)["input_ids"]
        caps, cmasks = layout.pack(bare)
        columns = {"padding": "max_length", "max_length": layout.columns, "truncation": True}
        assert caps.tolist() == tokenizer(SENTENCES, **columns)["input_ids"]
        assert cmasks.long().tolist() == tokenizer(SENTENCES, **columns)["attention_mask"]


def test_another_backbone_and_frames_for_ears_are_refused(folders):
    with pytest.raises(ValueError, match="reads what image:.* gives, not s3d"):
        MMPTModel.from_pretrained(folders["clip"], video_encoder="s3d")
    with pytest.raises(ValueError, match="give a file with sound"):
        MMPTModel.from_pretrained(folders["clap"])[0].encode_video(torch.zeros(2, 1, 16, 16, 3))


@pytest.fixture
def raw_tests(videos, tmp_path, monkeypatch):
    """Lists of four test sets over the two videos, below data/, in a folder of one's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("msrvtt", "youcook", "didemo", "activitynet"):
        (tmp_path / "data" / name / "videos").mkdir(parents=True)
    for number, file in enumerate(videos):
        for name in ("msrvtt", "youcook", "activitynet"):
            (tmp_path / "data" / name / "videos" / f"v{number}.mp4").symlink_to(file)
        (tmp_path / "data" / "didemo" / "videos" / f"v{number}.avi").symlink_to(file)
    (tmp_path / "data/msrvtt/MSRVTT_JSFUSION_test.csv").write_text(
        "video_id,sentence\nv0,a red video\nv1,the blue sea\nlost,a sea\n"
    )
    clips = {
        f"v{n}": [{"segment": [0, 2], "id": 0, "sentence": text}] for n, text in enumerate(SENTENCES[:2])
    }
    database = {v: {"subset": "validation", "duration": 3.0, "annotations": a} for v, a in clips.items()}
    (tmp_path / "data/youcook/youcookii_annotations_trainval.json").write_text(
        json.dumps({"database": database})
    )
    data(
        [
            "convert",
            "youcook",
            "data/youcook/youcookii_annotations_trainval.json",
            "data/youcook/youcook_val.pkl",
        ]
    )
    moments = [{"video": f"v{n}.avi", "description": SENTENCES[n], "times": [[0, 0]]} for n in range(2)]
    (tmp_path / "data/didemo/test_data.json").write_text(json.dumps(moments))
    told = {"duration": 3.0, "timestamps": [[0, 2], [1, 3]]}
    paragraphs = {f"v{n}": told | {"sentences": [SENTENCES[n], "a video ."]} for n in range(2)}
    (tmp_path / "data/activitynet/val_1.json").write_text(json.dumps(paragraphs))
    return tmp_path


@pytest.mark.parametrize(
    ("test", "kind"), [("vtt", "clip"), ("youcook", "siglip"), ("didemo", "clip"), ("anet", "clap")]
)
def test_predict_evaluates_raw_videos_and_makes_their_features_once(raw_tests, folders, test, kind, capsys):
    words = [f"projects/dual/test_{test}_zs.yaml", "--model", str(folders[kind]), "--device", "cpu", "--set"]
    predict.main([*words, "dataset.prompt=a video of {}"])
    out = next((raw_tests / "runs/dual").glob(f"*/test_{test}_zs/pretrained/results.json"))
    report = json.loads(out.read_text())
    assert len(report["checkpoint"]["sha256"]) == 64
    assert report["missing"] == ({"have no features": ["lost"]} if test == "vtt" else {})
    made = sorted(raw_tests.glob("runs/dual/features/*/*.npy"))
    assert len(made) == 2
    before = [path.stat().st_mtime_ns for path in made]
    predict.main([*words, "dataset.prompt=null"])
    assert [path.stat().st_mtime_ns for path in made] == before


def test_predict_names_a_folder_without_the_videos(raw_tests, folders):
    (raw_tests / "empty").mkdir()
    words = ["projects/dual/test_vtt_zs.yaml", "--model", str(folders["clip"]), "--videos"]
    with pytest.raises(LookupError, match="no item left of 3; 3 have no features"):
        predict.main([*words, "empty"])
    with pytest.raises(FileNotFoundError, match=r"dataset\.videos=nowhere: no such folder"):
        predict.main([*words, "nowhere"])
