"""Towers of other libraries as feature networks, and the choice of a backbone by name."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from mmpt.backbones.backbone import VideoBackbone, VideoFeatures, audio_backbone, video_backbone
from mmpt.backbones.external import ImageTower, TransformersAudioBackbone
from mmpt.registry import BACKBONES

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {**TINY, "image_size": 16, "patch_size": 8}
CLIPS = torch.randint(
    0, 255, (2, 3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def save(model, folder, preprocessor=None):
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def test_reversed_clips_are_the_flipped_frames():
    class Marks(torch.nn.Module):
        def forward(self, clips):
            return clips[:, 0, :, 0, 0]

    frames = torch.arange(8, dtype=torch.uint8).view(2, 4, 1, 1, 1).expand(2, 4, 2, 2, 3)
    forward, backward = (VideoFeatures(Marks(), normalize=False, reverse=r)(frames) for r in (False, True))
    assert torch.equal(forward.flip(1), backward) and torch.allclose(
        forward * 255, torch.arange(8.0).view(2, 4)
    )


def test_half_precision_changes_features_by_rounding_alone():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 3 * 16 * 16, 8))
    full, half = (VideoFeatures(network, half=half)(CLIPS) for half in (False, True))
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=2e-2, rtol=0)


def test_clip_tower_averages_unit_vectors_of_frames(tmp_path):
    config = transformers.CLIPVisionConfig(**IMAGES, projection_dim=6)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    backbone = video_backbone(f"image:{save(model, tmp_path)}", fps=3)
    assert (backbone.passport["pixels"], backbone.passport["frames_per_second"]) == (16, 3)
    got = backbone.network(CLIPS)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    with torch.no_grad():
        images = ((CLIPS / 255 - mean) / std).permute(0, 1, 4, 2, 3)
        each = torch.stack(
            [
                torch.nn.functional.normalize(model(pixel_values=clip).image_embeds, dim=-1).mean(0)
                for clip in images
            ]
        )
    torch.testing.assert_close(got, torch.nn.functional.normalize(each, dim=-1))
    assert isinstance(backbone.network.network.network, ImageTower)


@pytest.mark.parametrize("kind", ["Siglip", "ViT", "Dinov2", "DINOv3ViT"])
def test_other_image_towers_are_read_with_their_own_scaling(tmp_path, kind):
    if kind == "Siglip":
        text = {**TINY, "vocab_size": 20, "max_position_embeddings": 8}
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=IMAGES))
    else:
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**IMAGES))
    save(
        model,
        tmp_path,
        {"image_processor_type": f"{kind}ImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
    )
    backbone = video_backbone(f"image:{tmp_path}")
    assert (
        backbone.network(CLIPS).shape == (2, 16)
        and backbone.network.network.std.flatten().tolist() == [0.25] * 3
    )


def test_a_network_over_clips_reads_as_many_frames_of_a_second_as_it_was_built_for(tmp_path):
    sizes = IMAGES | {"num_frames": 2, "tubelet_size": 2}
    model = transformers.VideoMAEModel(transformers.VideoMAEConfig(**sizes)).eval()
    scaling = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    save(model, tmp_path, {"image_processor_type": "VideoMAEImageProcessor", **scaling})
    backbone = video_backbone(f"video:{tmp_path}")
    assert backbone.passport["frames_per_second"] == 2
    with torch.no_grad():
        pixels = ((CLIPS[:, [0, 2]] / 255 - 0.5) / 0.25).permute(0, 1, 4, 2, 3)
        expected = model(pixel_values=pixels).last_hidden_state.mean(1)
    torch.testing.assert_close(backbone.network(CLIPS), torch.nn.functional.normalize(expected, dim=-1))


@pytest.mark.parametrize(
    ("make", "kind"), [(video_backbone, "image"), (video_backbone, "video"), (audio_backbone, "audio")]
)
def test_a_model_that_is_not_there_is_an_error_in_a_line(tmp_path, make, kind):
    with pytest.raises(FileNotFoundError, match="nowhere' is neither a folder with config.json nor a model"):
        make(f"{kind}:{tmp_path}/nowhere")


def test_image_tower_without_its_scaling_is_refused(tmp_path):
    save(transformers.ViTModel(transformers.ViTConfig(**IMAGES)), tmp_path)
    with pytest.raises(ValueError, match="preprocessor_config.json"):
        video_backbone(f"image:{tmp_path}")


def test_open_clip_model_is_read_by_architecture_and_weights(monkeypatch):
    class Model(torch.nn.Module):
        def encode_image(self, images):
            return images.mean(dim=(2, 3))

    library = ModuleType("open_clip")  # it needs torchvision; what is tested is how it is called
    library.create_model = lambda name, pretrained: (
        Model() if (name, pretrained) == ("ViT-B-32", "laion2b") else None
    )
    library.get_model_preprocess_cfg = lambda model: {
        "size": (16, 16),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    monkeypatch.setitem(sys.modules, "open_clip", library)
    backbone = video_backbone("open_clip:ViT-B-32/laion2b")
    assert backbone.passport["pixels"] == 16 and backbone.network(CLIPS).shape == (2, 3)
    with pytest.raises(ValueError, match="they would be random"):
        video_backbone("open_clip:ViT-B-32")


def audio_folder(folder, kind):
    if kind == "ast":
        sizes = {
            **TINY,
            "patch_size": 16,
            "time_stride": 10,
            "frequency_stride": 10,
            "max_length": 100,
            "num_mel_bins": 32,
        }
        save(transformers.ASTModel(transformers.ASTConfig(**sizes)), folder)
        transformers.ASTFeatureExtractor(max_length=100, num_mel_bins=32).save_pretrained(folder)
        return 16000, 16
    sizes = {
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "hidden_size": 32,
    }
    sizes |= {
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 16,
        "projection_dim": 6,
        "enable_fusion": False,
    }
    save(transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig(**sizes)), folder)
    transformers.ClapFeatureExtractor(
        feature_size=16, max_length_s=1, truncation="rand_trunc"
    ).save_pretrained(folder)
    return 48000, 6


@pytest.mark.parametrize("kind", ["ast", "clap"])
def test_audio_tower_gives_one_vector_per_window(tmp_path, kind):
    rate, width = audio_folder(tmp_path, kind)
    backbone = TransformersAudioBackbone(f"audio:{tmp_path}")
    waves = np.random.default_rng(0).integers(-9000, 9000, (3, rate)).astype(np.int16)
    with torch.no_grad():
        vectors = backbone.network.eval()(torch.from_numpy(backbone.prepare(waves)))
    assert backbone.sample_rate == rate and vectors.shape == (3, width)
    assert not torch.allclose(vectors[0], vectors[1])


def test_audio_tower_hears_ten_seconds_unless_told_otherwise(tmp_path):
    audio_folder(tmp_path, "ast")
    assert audio_backbone(f"audio:{tmp_path}").passport["window_seconds"] == 10
    assert audio_backbone(f"audio:{tmp_path}", window_s=3).passport["window_seconds"] == 3


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (video_backbone, "image:<hub id or folder>, open_clip:<architecture>/<weights>, r2plus1d, s3d"),
        (audio_backbone, "audio:<hub id or folder>, beats, resnet9"),
    ],
)
def test_unknown_backbone_lists_the_known_ones(make, known):
    with pytest.raises(ValueError, match=f"'i3d'; known: .*{known}"):
        make("i3d")


@pytest.mark.parametrize("name", ["image", "s3d:ViT"])
def test_a_name_of_another_form_says_how_it_is_written(name):
    with pytest.raises(ValueError, match=rf"'{name}': expected {name.partition(':')[0]}"):
        video_backbone(name)


def test_a_folder_that_lacks_tensors_is_refused_and_the_tensors_named(tmp_path):
    config = transformers.CLIPVisionConfig(**IMAGES, projection_dim=6)
    save(transformers.CLIPVisionModelWithProjection(config), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of \d+ tensors .* visual_projection.weight, .* random"):
        video_backbone(f"image:{tmp_path}")


def test_weights_of_other_shapes_than_config_json_says_are_refused_by_name(tmp_path):
    config = transformers.CLIPVisionConfig(**IMAGES, projection_dim=6)
    folder = save(transformers.CLIPVisionModelWithProjection(config), tmp_path)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stated, "projection_dim": 5}))
    with pytest.raises(ValueError, match=r"visual_projection.weight has the shape \(6, 16\), .*\(5, 16\)"):
        video_backbone(f"image:{folder}")


def test_passports_of_other_weights_in_the_same_folder_differ(tmp_path):
    config = transformers.CLIPVisionConfig(**IMAGES, projection_dim=6)
    sums = set()
    for _ in range(2):
        save(transformers.CLIPVisionModelWithProjection(config), tmp_path)
        made = [video_backbone(f"image:{tmp_path}").passport["tensors_sha256"] for _ in range(2)]
        assert made[0] == made[1]
        sums.add(made[0])
    assert len(sums) == 2


def test_a_backbone_is_added_by_one_class(tmp_path):
    class Colours(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3))

        def forward(self, frames):
            return frames.mean(dim=(2, 3, 4)) * self.scale

    @BACKBONES.register("colours")
    class ColoursBackbone(VideoBackbone):
        """Mean colour."""

        fps, size = 2, 16

        def build(self, model):
            return Colours()

    try:
        torch.save({"scale": torch.tensor([1.0, 2.0, 3.0])}, tmp_path / "colours.pt")
        backbone = video_backbone("colours", tmp_path / "colours.pt", normalize=False)
        white = torch.full((1, 2, 16, 16, 3), 255, dtype=torch.uint8)
        assert backbone.network(white).tolist() == [[1.0, 2.0, 3.0]]
        assert backbone.passport["frames_per_second"] == 2
    finally:
        del BACKBONES._classes["colours"]


@pytest.mark.parametrize(("make", "name"), [(video_backbone, "r2plus1d"), (audio_backbone, "resnet9")])
def test_backbone_without_weights_is_refused(make, name):
    with pytest.raises(ValueError, match=f"'{name}' needs its weights"):
        make(name)


def test_a_network_that_gives_no_vector_a_second_is_refused():
    with pytest.raises(ValueError, match=r"the network gives \(\d+, 3, .*; expected \(seconds, numbers\)"):
        VideoFeatures(torch.nn.Identity())(CLIPS)
