"""Tiny dual encoders of transformers with random weights, as folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ["<pad>", "<s>", "</s>", "a", "red", "blue", "video", "of", "the", "sea", "."]
TEXT = {**TINY, "vocab_size": len(WORDS), "max_position_embeddings": 12}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGES = {**TINY, "image_size": 16, "patch_size": 8}
SCALING = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.25, 0.25]}
KINDS = ("clip", "siglip", "xclip", "clap")


def dual_folder(kind: str, folder: Path) -> Path:
    """A folder of a model with its tokenizer and what reads its input."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    getattr(transformers, f"{NAMES[kind]}Model")(_config(kind)).save_pretrained(folder)
    _tokenizer("</s>" if kind == "siglip" else None).save_pretrained(folder)
    if kind == "clap":
        reader = transformers.ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc")
        reader.save_pretrained(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(SCALING))
    return folder


NAMES = {"clip": "CLIP", "siglip": "Siglip", "xclip": "XCLIP", "clap": "Clap"}


def _config(kind: str) -> transformers.PreTrainedConfig:
    make = getattr(transformers, f"{NAMES[kind]}Config")
    if kind == "clap":
        sound = {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]}
        sound |= {"num_hidden_layers": 2, "hidden_size": 32, "spec_size": 64, "window_size": 4}
        sound |= {"num_mel_bins": 16, "enable_fusion": False, "projection_dim": 6}
        return make(text_config=TEXT | {"projection_dim": 6}, audio_config=sound, projection_dim=6)
    pictures = dict(IMAGES)
    if kind == "xclip":
        pictures |= {"num_frames": 2, "mit_hidden_size": 6, "mit_intermediate_size": 8}
        pictures |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    sizes = {} if kind == "siglip" else {"projection_dim": 6}
    sizes |= {"prompt_num_attention_heads": 2, "prompt_layers": 1} if kind == "xclip" else {}
    return make(text_config=TEXT | sizes, vision_config=pictures | sizes, **sizes)


def _tokenizer(end_alone: str | None) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, WORDS.index(word)) for word in ("<s>", "</s>")]
    single = "$A </s>" if end_alone else "<s> $A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="."
    )
