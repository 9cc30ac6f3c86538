"""MMPTModel: a trained model with its video backbone and tokenizer, for use in a few lines.

Letters: B videos, T seconds, F = max_video_len, W windows, N captions, D width; FPS frames per second of H x
    W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from mmpt.backbones.backbone import VideoBackbone, frame_network, named_backbone
from mmpt.checkpoints.model_folder import locate, write_folder
from mmpt.extraction.run import videos_of
from mmpt.inference.moments import CaptionAlignment, Moment, MomentIndex, align_captions
from mmpt.media.video import read_seconds
from mmpt.models.build import build_model
from mmpt.models.mmfusion import Encoded
from mmpt.modules.layers import VideoTokenMLP
from mmpt.ops.windows import window_ranges
from mmpt.registry import ALIGNERS, BACKBONES
from mmpt.utils import optional_import

Video = (
    str | Path | np.ndarray | Tensor
)  # a video file, a .npy file of features, frames (T, FPS, H, W, 3), or features (T, D)
SECONDS_PER_STEP = (
    4  # seconds of frames that go through the backbone at once: about half a GB of activations in S3D
)
CLIPS_PER_STEP = 256
Result = TypeVar("Result")
Vectors = TypeVar("Vectors", Tensor, np.ndarray)


class MMPTModel(nn.Module):
    """Video and text in one space.

    Args:
        fusion: the trained model.
        tokenizer: a transformers tokenizer.
        aligner: packs token ids into caption tensors.
        video_encoder: frames (B, 3, FPS, H, W) in [0, 1] -> (B, D), or a dict with `video_embedding`; None:
            videos are given as features.
        normalize: scale the backbone's features to unit length, as the training features were. False: the
            historic behaviour of this class, which left them as they came.
        fps, size: how files are read for it: frames per second, pixels.
    """

    def __init__(
        self,
        fusion: nn.Module,
        tokenizer: Any,
        aligner: Any,
        video_encoder: nn.Module | None = None,
        normalize: bool = True,
        fps: int = 30,
        size: int = 224,
    ):
        super().__init__()
        self.fusion = fusion
        self.tokenizer = tokenizer
        self.aligner = aligner
        self.video_encoder = video_encoder
        self.normalize = normalize
        self.fps, self.size = fps, size
        self.max_video_len: int = fusion.max_video_len
        self.feature_width: int = next(
            m for m in fusion.modules() if isinstance(m, VideoTokenMLP)
        ).linear1.in_features

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        checkpoint: str | Path | None = None,
        video_encoder: nn.Module | str | None = "s3d",
        normalize: bool = True,
        video_weights: str | Path | None = None,
    ) -> tuple[MMPTModel, Any, Any]:
        """A model in eval mode, its tokenizer and its aligner.

        Args:
            source: a project YAML, a folder written by `save_pretrained`, or a hub id.
            checkpoint: weights file, by path or by name in the run folder of the YAML. None: a folder's own
                weights; for a YAML `checkpoint_best.pt` of its run folder.
            video_encoder: a backbone by name ("s3d", "image:<hub id or folder>", ...), the one whose features
                the model was trained on; a module; or None to work on features alone. A backbone that is to
                be trained is given as a module: `S3D.from_files(weights)`.
            normalize: see the class.
            video_weights: weights file of the backbone; None: where it usually lies, for S3D
                `pretrained_models/s3d_howto100m.pth`.

        Raises:
            FileNotFoundError: model, weights or backbone are not where they were looked for.
            ValueError: an unknown `video_encoder`, or a damaged file.
        """
        if checkpoint is None and Path(source).suffix in (".yaml", ".yml"):
            checkpoint = "checkpoint_best.pt"
        config, weights = locate(source, checkpoint)
        transformers = optional_import("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(config.dataset.bert_name)
        aligner = ALIGNERS.get("Aligner")(config.dataset)
        reading = {}
        if isinstance(video_encoder, str):
            backbone = load_backbone(video_encoder, video_weights)
            video_encoder, reading = frame_network(backbone), {"fps": backbone.fps, "size": backbone.size}
        model = cls(build_model(config, weights), tokenizer, aligner, video_encoder, normalize, **reading)
        return model.eval(), tokenizer, aligner

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config, weights, tokenizer and a card; `from_pretrained(folder)` reads them. The video
        backbone is not copied."""
        write_folder(folder, self.fusion, self.tokenizer)

    def forward(
        self, video_frames: Tensor, caps: Tensor, cmasks: Tensor, return_score: bool = False
    ) -> dict[str, Tensor]:
        """Videos with their captions.

        Args:
            video_frames: (B, T, FPS, H, W, 3) RGB in [0, 1], or uint8; or features (B, T, D).
            caps: (B, columns) token ids as the aligner packs them.
            cmasks: (B, columns) true on tokens.
            return_score: only the dot product of each video with its caption, `score` (B,).

        Returns:
            What the fusion model returns. A video longer than F seconds is read in windows side by side:
            `pooled_video` is their mean, weighted by seconds, and `video_outputs` (B, W (F + 2), D) their
            tokens one after the other.
        """
        vfeats = self.features(video_frames)
        if len(caps) != len(vfeats):
            raise ValueError(
                f"{len(vfeats)} videos with {len(caps)} captions: forward takes pairs; similarity "
                "compares all with all."
            )
        caps, cmasks = caps.to(self.device), cmasks.to(self.device)
        if vfeats.shape[1] <= self.max_video_len:
            vfeats, vmasks = self._padded(vfeats)
            output = self.fusion(caps, cmasks, vfeats, vmasks)
        else:
            output = self.fusion.outputs(self._long_video(vfeats), self.fusion.forward_text(caps, cmasks))
        if return_score:
            return {"score": (output["pooled_video"] * output["pooled_text"]).sum(dim=-1)}
        return output

    @property
    def device(self) -> torch.device:
        return next(self.fusion.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.fusion.parameters()).dtype

    def features(self, video: Tensor | np.ndarray) -> Tensor:
        """Frames (B, T, FPS, H, W, 3) -> features (B, T, D) on the model's device; features pass through."""
        video = torch.as_tensor(video)
        if video.dim() not in (3, 6) or (video.dim() == 6 and video.shape[-1] != 3):
            raise ValueError(
                f"expected frames (B, T, FPS, H, W, 3) or features (B, T, D), got {tuple(video.shape)}."
            )
        if not video.shape[1]:
            raise ValueError(f"a video without seconds, {tuple(video.shape)}.")
        if video.dim() == 3:
            if video.shape[-1] != self.feature_width:
                width = self.feature_width
                raise ValueError(
                    f"features have {video.shape[-1]} numbers per second, the model reads {width}: "
                    "another backbone?"
                )
            return video.to(self.device, self.dtype)
        seconds = video.flatten(0, 1)  # (B T, FPS, H, W, 3)
        steps = [self._backbone(part) for part in seconds.split(SECONDS_PER_STEP)]
        return torch.cat(steps).unflatten(0, video.shape[:2])

    @torch.no_grad()
    def encode_video(self, videos: Video | Sequence[Video], numpy: bool = False) -> Tensor | np.ndarray:
        """One vector per video, (B, D).

        Args:
            videos: one or several of: a path of a video or of a `.npy` file of features, frames (T, FPS, H,
                W, 3), features (T, D). A tensor may also hold a batch of frames (6 dimensions) or features
                (3).
            numpy: return a float32 array instead of a tensor on the model's device.
        """
        vectors = [self._long_video(vfeats[None]).pooled for vfeats in self._each_video(videos)]
        if not vectors:
            raise ValueError("encode_video got no videos.")
        return _array(torch.cat(vectors)) if numpy else torch.cat(vectors)

    def encode_folder(
        self,
        folder: str | Path | Mapping[str, Video],
        progress: Callable[[Iterable], Iterable] = tqdm,
        on_failure: Callable[[str, Exception], None] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """(id, vector (D,)) of every video, each as soon as it is there; one video in memory at a time.

        Args:
            folder: of videos, or of features `<id>.npy`; or id -> video, as in `encode_video`.
            progress: wraps the loop over ids.
            on_failure: called with id and reason of a video that cannot be used, which is then left out;
                None: the reason is raised.
        """
        for video_id, vector in self._one_by_one(folder, self.encode_video, progress, on_failure):
            yield video_id, vector[0]

    @torch.no_grad()
    def encode_windows(
        self, video: Video, window_s: int | None = None, stride_s: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Vectors of the windows of one video.

        Args:
            video: as in `encode_video`.
            window_s: seconds per window, at most F (the default).
            stride_s: seconds between starts; None: windows side by side.

        Returns:
            (W, D) vectors, (W, 2) start and end in seconds.
        """
        window_s = self.max_video_len if window_s is None else window_s
        if not 1 <= window_s <= self.max_video_len:
            raise ValueError(
                f"window_s={window_s}, but the model reads 1 to {self.max_video_len} seconds at once."
            )
        vfeats = self._one_video(video)
        bounds = window_ranges(len(vfeats), window_s, stride_s)
        return self._encode_bounds(vfeats[None], bounds).pooled, torch.tensor(
            bounds, dtype=torch.float32, device=self.device
        )

    @torch.no_grad()
    def encode_text(self, sentences: str | Sequence[str], numpy: bool = False) -> Tensor | np.ndarray:
        """One vector per sentence, (N, D); `numpy` as in `encode_video`. Words beyond what the model reads
        are left out."""
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        vectors = []
        for first in range(0, len(sentences), CLIPS_PER_STEP):
            part = sentences[first : first + CLIPS_PER_STEP]
            caps, cmasks = self.aligner.pack(
                self.tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            )
            vectors.append(self.fusion.forward_text(caps.to(self.device), cmasks.to(self.device)).pooled)
        if not vectors:
            raise ValueError("encode_text got no sentences.")
        return _array(torch.cat(vectors)) if numpy else torch.cat(vectors)

    @staticmethod
    def similarity(text: Vectors, video: Vectors) -> Vectors:
        """Dot products, (N, D), (B, D) -> (N, B): what the model was trained to make great for what belongs
        together."""
        return text @ video.T

    def align(
        self,
        video: Video,
        captions: Sequence[str],
        window_s: int = 4,
        stride_s: int | None = None,
        relaxed: bool = False,
        epsilon: float = 0.1,
    ) -> CaptionAlignment:
        """Which seconds each caption belongs to: transport plan, and the path of DTW (`relaxed`: OTAM).

        Args:
            video: as in `encode_video`.
            captions: in the order of the video.
            window_s: seconds per window, the resolution of the answer; no more than the model reads at once.
            stride_s: seconds between windows; None: side by side.
            relaxed: the first and last captions may be left out, as when the video shows only a part.
            epsilon: entropic regulariser of the plan; smaller is sharper.
        """
        vectors, windows = self.encode_windows(video, min(window_s, self.max_video_len), stride_s)
        return align_captions(list(captions), self.encode_text(captions), vectors, windows, relaxed, epsilon)

    def index(
        self,
        videos: str | Path | Mapping[str, Video],
        window_s: int | None = None,
        stride_s: int | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
        on_failure: Callable[[str, Exception], None] | None = None,
    ) -> MomentIndex:
        """Vectors of the windows of many videos; `videos`, `progress` and `on_failure` as in `encode_folder`.

        Args:
            videos: folder, or id -> video.
            window_s, stride_s: as in `encode_windows`.
            progress: wraps the loop over ids, for instance `tqdm.tqdm`.
            on_failure: what to do with a video that cannot be used.
        """
        ids, windows, vectors = [], [], []
        encode = partial(self.encode_windows, window_s=window_s, stride_s=stride_s)
        for video_id, (vector, window) in self._one_by_one(videos, encode, progress, on_failure):
            ids += [video_id] * len(window)
            windows.append(_array(window))
            vectors.append(_array(vector))
        if not ids:
            raise ValueError("index got no usable videos.")
        return MomentIndex(np.array(ids), np.concatenate(windows), np.concatenate(vectors))

    def search(self, index: MomentIndex, text: str, k: int = 5) -> list[Moment]:
        """The k moments of an index that fit a text best."""
        return index.search(self.encode_text(text, numpy=True)[0], k)

    def _one_by_one(
        self,
        videos: str | Path | Mapping[str, Video],
        encode: Callable[[Video], Result],
        progress: Callable[[Iterable], Iterable],
        on_failure: Callable[[str, Exception], None] | None,
    ) -> Iterator[tuple[str, Result]]:
        videos = videos if isinstance(videos, Mapping) else videos_of(videos)
        for video_id in progress(list(videos)):
            try:
                result = encode(videos[video_id])
            except (ValueError, OSError) as error:
                if on_failure is None:
                    raise
                on_failure(video_id, error)
            else:
                yield video_id, result

    def _backbone(self, frames: Tensor) -> Tensor:
        """(n, FPS, H, W, 3) -> (n, D)."""
        if self.video_encoder is None:
            raise ValueError(
                "this model was loaded with video_encoder=None and reads features (T, D); load it with "
                'its backbone to read frames, such as video_encoder="s3d".'
            )
        scaled = frames.to(self.device)
        scaled = scaled.to(self.dtype) / 255 if scaled.dtype == torch.uint8 else scaled.to(self.dtype)
        if scaled.amax() > 1 or scaled.amin() < 0:
            found = f"{scaled.amin():.3g} to {scaled.amax():.3g}"
            raise ValueError(f"float frames must lie in [0, 1], got {found}; give uint8, or divide by 255.")
        features = self.video_encoder(scaled.permute(0, 4, 1, 2, 3))
        features = features["video_embedding"] if isinstance(features, dict) else features
        return functional.normalize(features, dim=-1) if self.normalize else features

    def _each_video(self, videos: Video | Sequence[Video]) -> Iterable[Tensor]:
        """Features (T, D) of each video."""
        is_batch = isinstance(videos, (np.ndarray, Tensor)) and videos.ndim in (3, 6)
        several = is_batch or not isinstance(videos, (str, Path, np.ndarray, Tensor))
        return (self._one_video(video) for video in (videos if several else [videos]))

    def _one_video(self, video: Video) -> Tensor:
        """Features (T, D) of one video, however it is given."""
        if isinstance(video, (str, Path)) and Path(video).suffix != ".npy":
            vfeats = torch.cat(
                [
                    self._backbone(torch.from_numpy(seconds))
                    for seconds in read_seconds(video, self.fps, self.size, chunk_s=SECONDS_PER_STEP)
                ]
            )
        else:
            loaded = _load(video) if isinstance(video, (str, Path)) else video
            vfeats = self.features(torch.as_tensor(loaded)[None])[0]
        if not torch.isfinite(vfeats).all():
            raise ValueError(
                f"{video if isinstance(video, (str, Path)) else 'a video'}: features are not finite."
            )
        return vfeats

    def _long_video(self, vfeats: Tensor) -> Encoded:
        """Windows of F seconds side by side, averaged by their seconds: (B, T, D) of any T."""
        bounds = window_ranges(vfeats.shape[1], self.max_video_len)
        windows = self._encode_bounds(vfeats, bounds)
        seconds = torch.tensor(
            [end - start for start, end in bounds], dtype=vfeats.dtype, device=vfeats.device
        )
        pooled, outputs, mask = (x.unflatten(0, (len(vfeats), len(bounds))) for x in windows)  # (B, W, ...)
        mean = (pooled * (seconds / seconds.sum())[:, None]).sum(dim=1)
        return Encoded(mean, outputs.flatten(1, 2), mask.flatten(1, 2))

    def _encode_bounds(self, vfeats: Tensor, bounds: Sequence[tuple[int, int]]) -> Encoded:
        """Windows of (B, T, D) videos, in chunks: (B W, ...), video by video."""
        parts = [self._padded(vfeats[:, start:end]) for start, end in bounds]
        clips, masks = (torch.stack(x, dim=1).flatten(0, 1) for x in zip(*parts, strict=True))
        head = torch.tensor([[self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]], device=self.device)
        encoded = []
        for clip, mask in zip(clips.split(CLIPS_PER_STEP), masks.split(CLIPS_PER_STEP), strict=True):
            ids = head.expand(len(clip), 2)
            encoded.append(self.fusion.forward_video(clip, mask, ids, torch.ones_like(ids, dtype=torch.bool)))
        return Encoded(*(torch.cat(x) for x in zip(*encoded, strict=True)))

    def _padded(self, vfeats: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T <= F, D) -> zero-padded (B, F, D) and mask (B, F)."""
        missing = self.max_video_len - vfeats.shape[1]
        mask = torch.arange(self.max_video_len, device=vfeats.device) < vfeats.shape[1]
        return functional.pad(vfeats, (0, 0, 0, missing)), mask.expand(len(vfeats), -1)


def _load(path: str | Path) -> np.ndarray:
    """The array in a `.npy` file."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file of features, or a damaged one ({error}).") from error


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def load_backbone(name: str, weights: str | Path | None = None) -> VideoBackbone:
    """A video backbone by name, made fast and no longer trainable.

    Args:
        name: as in `MMPTModel.from_pretrained`.
        weights: its file; None: where it usually lies.

    Raises:
        FileNotFoundError: there is no weights file; the message says where it comes from.
        ValueError: unknown name, or a file without all tensors.
    """
    kind = name.partition(":")[0]
    if weights is None and kind in BACKBONES.names():
        weights = BACKBONES.get(kind).usual_weights
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(
            f"no weights of {name} at {weights}. Put the file there (pretrained_models/README.md says where "
            "it comes from) or name it as video_weights, or pass video_encoder=None and give features "
            "instead of frames."
        )
    return named_backbone(name, "video", weights)
