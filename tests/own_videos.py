"""A model for the synthetic world, a toy backbone, folders of videos with captions as people have them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.media.media import write_video

SENTENCES = ("chop the onion", "fry the onion in a pan", "pour the milk", "stir the soup")


@pytest.fixture(scope="session")
def model_folder(toy_world, tmp_path_factory):
    """A model with random weights for the synthetic world."""
    from mmpt.config import load_config
    from mmpt.models import MMPTModel, build_model
    from mmpt.processors import load_tokenizer
    from mmpt.registry import ALIGNERS

    config = load_config(ROOT / "projects/toy/videoclip.yaml", [f"dataset.bert_name={toy_world}/model"])
    torch.manual_seed(0)
    tokenizer = load_tokenizer(config.dataset.bert_name)
    model = MMPTModel(build_model(config), tokenizer, ALIGNERS.get("Aligner")(config.dataset))
    folder = tmp_path_factory.mktemp("model") / "toy"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_backbone(tmp_path_factory):
    """Name of a backbone of the features' width: a ViT of one layer with random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("backbone")
    sizes = {"hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(
        folder
    )
    scaling = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    scaling |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return f"image:{folder}"


def vtt(path, sentences=SENTENCES, step_s=3):
    """A WebVTT file with a sentence every few seconds."""
    cues = (
        f"00:00:{step_s * i:02}.000 --> 00:00:{step_s * i + 2:02}.000\n{sentence}\n"
        for i, sentence in enumerate(sentences)
    )
    path.write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")


def film(path, seconds=12, colour=0, **options):
    """A video whose shade changes every three seconds."""
    rng = np.random.default_rng(colour)
    shades = rng.integers(0, 256, (seconds, 3))
    return write_video(path, range(0, 1000 * seconds, 500), shade=lambda i: shades[i // 6], **options)


@pytest.fixture(scope="session")
def five_videos(tmp_path_factory):
    """Five videos of twelve seconds, each with its captions beside it."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("own") / "videos"
    folder.mkdir()
    for number in range(5):
        film(folder / f"v{number}.mp4", colour=number)
        vtt(folder / f"v{number}.en.vtt")
    return folder


@contextlib.contextmanager
def served(app):
    """The address at which an application answers meanwhile."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as own:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{own.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
