"""Single-encoder models: `[CLS] video [SEP] words [SEP]` as one sequence (VLM).

Shape letters: B clips, F video tokens, T caption columns, D width, L = F + T, C vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.config import required
from mmpt.config.fields import option
from mmpt.config.schema import Config
from mmpt.models import sequence_layout as layout
from mmpt.models.generation import beam_search, greedy_search
from mmpt.models.mmfusion import Encoded, MMFusion
from mmpt.models.packing import chosen
from mmpt.models.transformermodel import MMBertForMTM
from mmpt.registry import MODELS
from mmpt.utils.columns import NO_LABEL


@MODELS.register()
class MMFusionJoint(MMFusion):
    """One encoder over both modalities; its first `dataset.num_iso_layer` layers keep them apart.

    Pooled vectors are read after the last isolated layer, so that a video's vector does not depend on the
    caption beside it; without isolated layers they are read after the last layer, where it does.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.mm_encoder = self.build_encoder(self.encoder_cls())
        self.n_isolated = config.dataset.num_iso_layer or 0
        n_layers = self.mm_encoder.bert.config.num_hidden_layers
        if self.n_isolated > n_layers:
            raise ValueError(
                f"dataset.num_iso_layer={self.n_isolated} exceeds the {n_layers} layers of "
                f"{config.dataset.bert_name}."
            )

    def encoder_cls(self) -> str | type:
        return required(self.config, "model.mm_encoder_cls", self)

    def joint_hidden(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor) -> Tensor:
        """(B, L, D) after the isolated layers, or after all layers where none is isolated."""
        mask = layout.isolated_mask(cmasks, vmasks) if self.n_isolated else layout.splice(cmasks, vmasks)
        types = layout.token_types(caps.shape[1], vfeats.shape[1], caps.device)
        return self.mm_encoder(caps, self.feature_norm(vfeats), mask, types, self.n_isolated or None)

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        video, text = layout.split(self.joint_hidden(caps, cmasks, vfeats, vmasks), vfeats.shape[1])
        video_pool = layout.video_segment(caps, cmasks, vmasks).pool
        text_pool = layout.text_segment(caps, cmasks).pool
        return self.outputs(
            self.scored(Encoded.of(video, video_pool)), self.scored(Encoded.of(text, text_pool), text=True)
        )


@MODELS.register()
class MMFusionMFMMLM(MMFusionJoint):
    """Masked frame and masked language modelling.

    With labels in the batch it returns `video_logits` and `text_logits` of the masked tokens; without, the
    pooled pair.
    """

    @property
    def returns(self) -> frozenset[str]:
        return super().returns | {"video_logits", "text_logits"}

    def forward(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        attention_mask: Tensor | None = None,
        video_label: Tensor | None = None,
        text_label: Tensor | None = None,
        lengths: Mapping[str, list[int]] | None = None,
        labelled: Mapping[str, int] | None = None,
        **batch,
    ) -> dict[str, Tensor]:
        """Logits of masked tokens, or the pooled pair.

        Args:
            caps, cmasks, vfeats, vmasks: the batch; masked words are replaced already, masked frames are
                zeroed here.
            attention_mask: (B, L, L) which position reads which, for generation-like masking; None: all valid
                positions.
            video_label: (B, F) true on masked frames.
            text_label: (B, T) the id behind a masked word, -100 elsewhere.
            lengths, labelled: what the data set counted, see `MMDataset.collate`; None: it did not.
        """
        if video_label is None or text_label is None:
            return super().forward(caps, cmasks, vfeats, vmasks)
        n_video = vfeats.shape[1]
        mask = layout.splice(cmasks, vmasks) if attention_mask is None else attention_mask
        types = layout.token_types(caps.shape[1], n_video, caps.device)
        visible = vfeats.masked_fill(video_label[..., None], 0)
        hidden = self.mm_encoder(caps, visible, mask, types)
        n_frames, n_words = ((labelled or {}).get(key) for key in ("video_label", "text_label"))
        valid = (lengths or {}).get("vmasks")
        others = None if valid is None or n_frames is None else sum(valid) - n_frames
        masked_video = chosen(layout.video_tokens(hidden, n_video), video_label, n_frames)
        masked_text = chosen(layout.caption_tokens(hidden, n_video), text_label != NO_LABEL, n_words)
        targets = self.mm_encoder.video_targets(vfeats, vmasks, video_label, n_frames, others)
        video_logits, text_logits = self.mm_encoder.logits(masked_video, masked_text, *targets)
        return {"video_logits": video_logits, "text_logits": text_logits}


@MODELS.register()
class MMFusionMTM(MMFusionMFMMLM):
    """Masked token modelling over frames and vocabulary together; always uses its own encoder, whatever the
    YAML names."""

    def encoder_cls(self) -> type:
        return MMBertForMTM


@MODELS.register()
class MMFusionNLG(MMFusionJoint):
    """Writes a caption for a clip, word by word behind the prompt `[CLS] [SEP] [CLS]`; [SEP] ends it."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MMFusion.Config):
        """Length of captions."""

        max_decode_length: int | None = option(
            None, "longest generated caption, the three prompt ids included", least=1
        )

    returns = frozenset({"logits"})

    def forward(  # type: ignore[override]  # a batch comes by name
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        attention_mask: Tensor,
        text_label: Tensor,
        labelled: Mapping[str, int] | None = None,
        **batch,
    ) -> dict[str, Tensor]:
        """`logits` (n, C) of the n labelled words.

        Args:
            caps, cmasks, vfeats, vmasks: the batch, words shifted by one behind the prompt.
            attention_mask: (B, L, L) which position reads which.
            text_label: (B, T) the next word, -100 where there is none to guess.
            labelled: how many there are to guess, as the data set counted them; None: it did not.
        """
        types = layout.token_types(caps.shape[1], vfeats.shape[1], caps.device)
        hidden = self.mm_encoder(caps, vfeats, attention_mask, types)
        words = layout.caption_tokens(hidden, vfeats.shape[1])
        n_words = (labelled or {}).get("text_label")
        return {"logits": self.mm_encoder.logits(chosen(words, text_label != NO_LABEL, n_words))}

    @torch.no_grad()
    def generate(
        self,
        caps: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        num_beams: int = 1,
        max_length: int | None = None,
        **options,
    ) -> Tensor:
        """Captions of clips.

        Args:
            caps: (B, >= 2) whose first two columns are [CLS] and [SEP].
            vfeats: (B, F, features).
            vmasks: (B, F) valid seconds.
            num_beams: 1 takes the likeliest word at each step.
            max_length: longest result; None: what `model.max_decode_length` and `dataset.max_len` allow.
            options: `length_penalty`, `early_stopping` of `beam_search`.

        Returns:
            (B, <= max_length) token ids, the three of the prompt included.
        """
        prompt = caps[:, [0, 1, 0]]
        search: dict[str, Any] = {
            "max_length": max_length or self.longest_caption(),
            "eos_id": int(caps[0, 1]),
            "pad_id": self.bert_config.pad_token_id,
        }
        if num_beams == 1:
            return greedy_search(
                lambda ids: self.next_logits(ids, vfeats, vmasks), prompt, **search, **options
            )
        vfeats, vmasks = (
            vfeats.repeat_interleave(num_beams, dim=0),
            vmasks.repeat_interleave(num_beams, dim=0),
        )
        return beam_search(
            lambda ids: self.next_logits(ids, vfeats, vmasks),
            prompt,
            num_beams=num_beams,
            **search,
            **options,
        )

    def longest_caption(self) -> int:
        """Ids of the longest caption, prompt included."""
        room = layout.max_words(required(self.config, "dataset.max_len", self), self.max_video_len)
        return min(self.config.model.max_decode_length or room, room)

    def next_logits(self, ids: Tensor, vfeats: Tensor, vmasks: Tensor) -> Tensor:
        """(B, n) ids so far -> (B, C) logits of the next word."""
        mask = layout.generation_mask(vmasks, ids.shape[1])
        types = layout.token_types(ids.shape[1], vfeats.shape[1], ids.device)
        return self.mm_encoder.logits(self.mm_encoder(ids, vfeats, mask, types)[:, -1])
