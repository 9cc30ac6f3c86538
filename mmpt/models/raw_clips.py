"""GDT and STiCA trained on raw clips, as a project file names them.

Shape letters: B items, V views, T frames, H, W pixels, M mel filters, A spectrogram frames, N words, n
crops of a kind, C = 8 width, D = 256.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.backbones.resnet import WIDTH
from mmpt.checkpoints.weights import read_stored
from mmpt.config import schema
from mmpt.config.fields import Section, option, read_section
from mmpt.models.gdt import AVGDT, STiCANetwork, VidTextGDT
from mmpt.models.mmstica import VERSIONS, Crops, Pooling
from mmpt.registry import MODELS


@dataclass(frozen=True, kw_only=True)
class VideoNetwork(Section):
    """The network over frames."""

    video_depth: int = option(18, "layers of the video network over frames, 18 or 34", one_of=(18, 34))
    width: int = option(
        WIDTH,
        "channels of the first stage of networks over frames and sound; published ones have 64, a "
        "multiple of 8 below it makes a small network",
        least=2,
    )


@dataclass(frozen=True, kw_only=True)
class Networks(VideoNetwork):
    """The networks over frames and over sound."""

    audio_depth: int = option(9, "layers of the network over sound, 9 or 18", one_of=(9, 18))


def by_view(
    forward: Callable[..., dict[str, Tensor]], n_views: int | None, *inputs: Tensor
) -> dict[str, Tensor]:
    """What `forward` gives, (B V, ...) in the order of the inputs, each view by itself, so that its
    BatchNorm sees no other view, as published.

    Args:
        forward: the network of one view.
        n_views: V; None: 1.
        *inputs: (B V, ...), the V views of an item side by side.
    """
    n = n_views or 1
    outputs = [forward(*(x[view::n] for x in inputs)) for view in range(n)]
    return {
        name: torch.stack([output[name] for output in outputs], dim=1).flatten(0, 1) for name in outputs[0]
    }


@MODELS.register()
class RawAVGDT(AVGDT):
    """Frames and sound of a clip in one space; its checkpoints carry the names of the published ones."""

    Config = Networks
    returns = frozenset({"pooled_video", "pooled_audio"})

    def __init__(self, config: schema.Config):
        model = config.model
        super().__init__(model.video_depth, model.audio_depth, model.width)

    def forward(
        self, video: Tensor, audio: Tensor, clips_per_video: int | None = None, **batch: Any
    ) -> dict[str, Tensor]:
        """Embeds each view by itself.

        Args:
            video: (B V, 3, T, H, W) clips, the V views of an item side by side.
            audio: (B V, 1, M, A) spectrograms.
            clips_per_video: V; None: 1.
            **batch: whatever else the batch holds.

        Returns:
            `pooled_video`, `pooled_audio` (B V, D) unit rows in the same order.
        """
        return by_view(super().forward, clips_per_video, video, audio)


@MODELS.register()
class RawVidTextGDT(VidTextGDT):
    """Frames of a clip and the words spoken in it in one space, over the word table of `model.word_table`,
    which is not trained."""

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoNetwork):
        """The networks over frames and words."""

        word_table: str | None = option(
            None, "word vectors, one tensor (words + 1, width) whose row 0 is padding: word2vec.pth"
        )

    returns = frozenset({"pooled_video", "pooled_text"})

    def __init__(self, config: schema.Config):
        table = read_word_table(config.model.word_table)
        super().__init__(len(table), config.model.video_depth, config.model.width, table.shape[1])
        self.text_network.word_embd.weight.data.copy_(table)

    def forward(  # type: ignore[override]  # a batch comes by name
        self, video: Tensor, caps: Tensor, clips_per_video: int | None = None, **batch: Any
    ) -> dict[str, Tensor]:
        """Embeds each view by itself.

        Args:
            video: (B V, 3, T, H, W) clips, the V views of an item side by side.
            caps: (B V, N) ids of words, 0 is padding.
            clips_per_video: V; None: 1.
            **batch: whatever else the batch holds.

        Returns:
            `pooled_video`, `pooled_text` (B V, D) unit rows in the same order.
        """
        return by_view(super().forward, clips_per_video, video, caps)

    def order_sensitive(self, name: str) -> bool:
        """Whether the encoder of a modality tells a reversed view: the maximum over words does not."""
        return name != "text"


def read_word_table(path: str | None) -> Tensor:
    """(words + 1, width) float32.

    Raises:
        ValueError: no file is named, or it holds something else.
        FileNotFoundError: there is no such file.
    """
    if path is None:
        raise ValueError("model.word_table is not set: RawVidTextGDT needs the word vectors, word2vec.pth.")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"model.word_table={path}: no such file. It is published in word2vec.zip, beside dict.npy."
        )
    table = read_stored(path)
    if not isinstance(table, Tensor) or table.dim() != 2:
        found = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise ValueError(f"model.word_table={path}: expected one tensor (words + 1, width), got {found}.")
    return table.float()


@MODELS.register()
class RawSTiCA(STiCANetwork):
    """Two augmented versions of a clip, each whole and by crops of its feature map, and its sound in one
    space.

    Boxes are drawn anew in each update, as `model.crops` says; `model.pooling` says how maps are pooled
    (`layers: 0`: the mean). Checkpoints carry the names of published ones. Source: STiCA (arXiv 2103.10211).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Networks):
        """The networks, crops and pooling."""

        crops: Mapping[str, Any] | None = option(
            None, "number and size of the crops of feature maps", holds=Crops
        )
        pooling: Mapping[str, Any] | None = option(
            None, "attention pooling of feature maps: layers, heads, ffn, positional, ...", holds=Pooling
        )

    returns = frozenset({"pooled_video_1", "pooled_video_2", "pooled_audio", "crops"})

    def __init__(self, config: schema.Config):
        model = config.model
        pooling = read_section(Pooling, model.pooling or {}, "model.pooling")
        super().__init__(
            video_depth=model.video_depth,
            audio_depth=model.audio_depth,
            width=model.width,
            **dataclasses.asdict(pooling),
        )
        self.crop = read_section(Crops, model.crops or {}, "model.crops")

    def forward(  # type: ignore[override]  # a batch comes by name
        self, video: Tensor, audio: Tensor, num_updates: int = 0, **batch: Any
    ) -> dict[str, Any]:
        """Embeds both versions.

        Args:
            video: (B, 2, 3, T, H, W).
            audio: (B, 1, M, A).
            num_updates: says which boxes are drawn.
            **batch: whatever else the batch holds.

        Returns:
            `pooled_video_1`, `pooled_video_2`, `pooled_audio` (B, D) unit rows, and `crops`: kind and version
            -> (n, B, D).
        """
        output: dict[str, Any] = {"crops": {}}
        for version in VERSIONS:
            found = self.video_side(
                video[:, version - 1],
                functools.partial(self.crop.draw, update=num_updates, version=version),
                version,
            )
            output[f"pooled_video_{version}"] = found.pop(f"pooled_video_{version}")
            output["crops"] |= found
        return output | self.audio_side(audio)
