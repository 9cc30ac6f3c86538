"""Dual encoders of transformers as models: CLIP, SigLIP, SigLIP 2, X-CLIP, CLAP, and whatever else offers
text features and those of pictures, clips or sound in one space.

A video is the mean of the unit vectors of its seconds, scaled to unit length; the features of the seconds are
those of the backbone `image:<id>`, `video:<id>` or `audio:<id>`. So a stored feature serves any length of
clip, and a whole video is the exact mean of all its seconds.

Letters: B clips, F seconds, T text positions, D width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.backbone import tensors_sha256
from mmpt.backbones.external import compared_with_text, load_whole, scaling_of, vectors_of
from mmpt.config import required
from mmpt.config.schema import Config
from mmpt.models.mmfusion import Encoded
from mmpt.registry import MODELS
from mmpt.utils import optional_import

SIDES = ("vision_model", "visual_projection", "audio_model", "audio_projection", "mit", "prompts_generator")


@MODELS.register()
class DualEncoder(nn.Module):
    """The text side of the model that `dataset.bert_name` names, beside the mean of unit features.

    Raises:
        ValueError: the model has no two sides, or its folder lacks tensors.
    """

    returns = frozenset(
        {
            "pooled_video",
            "pooled_text",
            "video_outputs",
            "text_outputs",
            "video_mask_outputs",
            "text_mask_outputs",
        }
    )
    aligner_cls = "DualEncoderAligner"
    brings_weights = True  # no checkpoint is needed
    unit_vectors = True  # what is compared has unit length

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.source: str = required(config, "dataset.bert_name", self)
        self.max_video_len: int = required(config, "dataset.max_video_len", self)
        self.modality = compared_with_text(self.source)
        if self.modality is None:
            raise ValueError(
                f"dataset.bert_name={self.source}: no dual encoder of transformers (CLIP, SigLIP, X-CLIP, "
                "CLAP, ...) that can be read now."
            )
        self.backbone = self.features_of(config)
        self.network = whole_model(self.source)
        self.checksum = tensors_sha256(self.network)
        for side in SIDES:  # the backbone has it
            if hasattr(self.network, side):
                delattr(self.network, side)
        model_type = self.network.config.model_type
        self.reads_padding = model_type.startswith("siglip")  # which was trained without a mask
        self.feature_width: int = self._width()

    @staticmethod
    def features_of(config: Config) -> str:
        """Name of the backbone whose features the model reads."""
        source = required(config, "dataset.bert_name")
        return f"{compared_with_text(source)}:{source}"

    @torch.no_grad()
    def _width(self) -> int:
        ids = torch.zeros(1, 2, dtype=torch.long)
        return self.forward_text(ids, torch.ones_like(ids, dtype=torch.bool)).pooled.shape[-1]

    def forward_text(self, caps: Tensor, cmasks: Tensor) -> Encoded:
        """Text alone: `caps` (B, T) as `DualEncoderAligner` lays them out -> unit vectors (B, D)."""
        words = {} if self.reads_padding else {"attention_mask": cmasks.long()}
        pooled = functional.normalize(
            vectors_of(self.network.get_text_features(input_ids=caps, **words)), dim=-1
        )
        return Encoded(
            pooled, pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device)
        )

    def forward_video(self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor) -> Encoded:
        """Video alone, (B, F, D) -> the mean of its unit vectors (B, D), not yet scaled, so that windows
        can be averaged; the outputs stand between two zero vectors, where other models have [CLS] and
        [SEP]."""
        seconds = functional.normalize(vfeats, dim=-1) * vmasks[..., None]
        pooled = seconds.sum(dim=1) / vmasks.sum(dim=1, keepdim=True).clamp(min=1)
        return Encoded(pooled, functional.pad(seconds, (0, 0, 1, 1)), functional.pad(vmasks, (1, 1)))

    def outputs(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """The dict every fusion model returns."""
        return {
            "pooled_video": functional.normalize(video.pooled, dim=-1),
            "pooled_text": text.pooled,
            "video_outputs": video.outputs,
            "text_outputs": text.outputs,
            "video_mask_outputs": video.mask,
            "text_mask_outputs": text.mask,
        }

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch: Any
    ) -> dict[str, Tensor]:
        """Both sides of B clips with a caption each."""
        return self.outputs(self.forward_video(vfeats, vmasks, caps, cmasks), self.forward_text(caps, cmasks))

    def save(self, folder: str | Path) -> None:
        """The whole model, with both sides, as transformers reads it; and how its pictures or sounds are
        read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.modality == "audio":
            optional_import("transformers").AutoFeatureExtractor.from_pretrained(self.source).save_pretrained(
                folder
            )
        else:
            scaling = scaling_of(self.source)
            if scaling is not None:
                (folder / "preprocessor_config.json").write_text(json.dumps(scaling, indent=1) + "\n")
        whole_model(self.source).save_pretrained(folder)


def whole_model(source: str) -> nn.Module:
    """Both sides, without anything left as it was drawn."""
    return load_whole(optional_import("transformers").AutoModel, source).eval()
