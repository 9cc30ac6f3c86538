"""Depth of videos by an estimator of transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmpt.processors.modalities.modalities import Modality
from mmpt_cli.features import main
from tests.media.media import write_video

pytest.importorskip("av")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    """A depth estimator of random weights and small sizes."""
    folder = tmp_path_factory.mktemp("estimator")
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=1, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, patch_size=14, neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4, head_hidden_size=4,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = {"image_processor_type": "DPTImageProcessor", "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, estimator):
    folder = tmp_path_factory.mktemp("depth")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "v0.mkv", [500 * k for k in range(10)])
    (folder / "videos" / "broken.mp4").write_text("no video")
    main(
        [
            "depth",
            str(folder / "videos"),
            str(folder / "out"),
            "--model",
            str(estimator),
            "--size",
            "32",
            "--quiet",
        ]
    )
    return folder


def test_each_second_has_a_picture_of_depth_scaled_over_the_video(made):
    depth = np.load(made / "out" / "v0_depth.npy")
    assert depth.shape == (5, 32, 43) and depth.dtype == np.uint8
    assert (depth.min(), depth.max()) == (0, 255)
    assert json.loads((made / "out" / "failures.json").read_text()).keys() == {"broken"}


def test_the_modality_reads_what_was_made_by_the_name_of_its_video(made):
    stream = Modality(name="depth", path=str(made / "out"), raw="frames", size=16).files()
    frames = stream.read("v0", None, 4, None)
    assert frames.shape == (4, 3, 16, 16) and np.isfinite(frames).all()


def test_another_run_leaves_it_and_another_size_is_refused(made, estimator, capsys):
    words = ["depth", str(made / "videos"), str(made / "out"), "--model", str(estimator), "--quiet", "--size"]
    main([*words, "32"])
    assert "0 extracted, 1 were there, 1 failed" in capsys.readouterr().out
    with pytest.raises(ValueError, match="pixels"):
        main([*words, "48"])
