"""MMPTModel: a trained model with its video backbone and tokenizer, for use in a few lines.

Letters: B videos, T seconds, F = max_video_len, W windows, N captions, D width; FPS frames per second of H x
    W pixels.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from mmpt.backbones.backbone import AudioBackbone, frame_network
from mmpt.calibration import Calibration
from mmpt.checkpoints.model_folder import CARD, write_folder
from mmpt.config import required
from mmpt.extraction.run import videos_of
from mmpt.inference.loading import CALIBRATION, load_backbone, located, weights_sha256
from mmpt.inference.moments import CaptionAlignment, Moment, MomentIndex, align_captions
from mmpt.inference.spans import note_in_card, spans_of
from mmpt.media.audio import read_audio_windows
from mmpt.media.video import read_seconds
from mmpt.models.build import build_model
from mmpt.models.mmfusion import Encoded
from mmpt.modules.layers import VideoTokenMLP
from mmpt.ops.windows import window_ranges
from mmpt.processors.tokens import read_tokenizer
from mmpt.registry import ALIGNERS
from mmpt.utils.shardedtensor import open_npy

# a video file, a .npy file of features, frames (T, FPS, H, W, 3), or features (T, D)
Video: TypeAlias = str | Path | np.ndarray | Tensor
# seconds of frames that go through the backbone at once: about half a GB of activations in S3D
SECONDS_PER_STEP = 4
CLIPS_PER_STEP = 256
AUTO = "auto"
Result = TypeVar("Result")
Vectors = TypeVar("Vectors", Tensor, np.ndarray)


class MMPTModel(nn.Module):
    """Video and text in one space.

    Args:
        fusion: the trained model.
        tokenizer: a transformers tokenizer.
        aligner: packs token ids into caption tensors.
        video_encoder: frames (B, 3, FPS, H, W) in [0, 1] -> (B, D), or a dict with `video_embedding`; of a
            model that hears, what `sound` prepares -> (B, D). None: videos are given as features.
        normalize: scale the backbone's features to unit length, as the training features were. False: the
            historic behaviour of this class, which left them as they came.
        fps, size: how files are read for it: frames per second, pixels.
        sound: how sound is read for it, of a model that hears.
        calibration: of its alignments, as `mmpt calibrate` wrote it.

    Attributes:
        backbone_name: of the network whose features it reads, where `from_pretrained` knows it.
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
        sound: AudioBackbone | None = None,
        calibration: Calibration | None = None,
    ):
        super().__init__()
        self.calibration = calibration
        self.backbone_name: str | None = None
        self.fusion = fusion
        self.tokenizer = tokenizer
        self.aligner = aligner
        self.video_encoder = video_encoder
        self.normalize = normalize
        self.fps, self.size, self.sound = fps, size, sound
        self.max_video_len: int = fusion.max_video_len
        self.unit_vectors: bool = getattr(fusion, "unit_vectors", False)
        self.feature_width: int = (
            getattr(fusion, "feature_width", None)
            or next(m for m in fusion.modules() if isinstance(m, VideoTokenMLP)).linear1.in_features
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        checkpoint: str | Path | None = None,
        video_encoder: nn.Module | str | None = AUTO,
        normalize: bool = True,
        video_weights: str | Path | None = None,
        calibrated: bool = True,
        normalise: bool | None = None,
    ) -> tuple[MMPTModel, Any, Any]:
        """A model in eval mode, its tokenizer and its aligner.

        Args:
            source: a project YAML; a folder written by `save_pretrained`, or of a dual encoder of
                transformers (CLIP, SigLIP, X-CLIP, CLAP); a hub id of either; or a name that `mmpt models
                list` shows.
            checkpoint: weights file, by path or by name in the run folder of the YAML. None: a folder's own
                weights; for a YAML `checkpoint_best.pt` of its run folder.
            video_encoder: a backbone by name ("s3d", "image:<hub id or folder>", ...), the one whose features
                the model was trained on; "auto": that of the model's name or its own, for others s3d; a
                module; or None to work on features alone. A backbone that is to be trained is given as a
                module: `S3D.from_files(weights)`.
            normalize: see the class.
            video_weights: weights file of the backbone; None: where it usually lies, for S3D
                `pretrained_models/s3d_howto100m.pth`.
            calibrated: read the calibration that lies with the weights, if there is one.
            normalise: `normalize`, as earlier versions spelled it.

        Raises:
            FileNotFoundError: model, weights or backbone are not where they were looked for.
            ValueError: an unknown `video_encoder`, or a damaged file.
        """
        normalize = normalize if normalise is None else normalise
        found = located(source, checkpoint)
        config, weights, backbone = found
        fusion = build_model(config, weights)
        name = required(config, "dataset.bert_name")
        tokenizer = read_tokenizer(name)
        aligner = ALIGNERS.get(getattr(fusion, "aligner_cls", "Aligner"))(config.dataset)
        reading: dict[str, Any] = {}
        own = getattr(fusion, "backbone", None)  # of which its space is made: no other fits
        backbone = own or backbone
        if video_encoder == AUTO:
            video_encoder = backbone
        if own and isinstance(video_encoder, str) and video_encoder != own:
            raise ValueError(
                f"{source}: reads what {own} gives, not {video_encoder}; leave video_encoder out."
            )
        if isinstance(video_encoder, str):
            network = load_backbone(video_encoder, video_weights)
            if isinstance(network, AudioBackbone):
                video_encoder, reading = network.network, {"sound": network}
            else:
                video_encoder, reading = frame_network(network), {"fps": network.fps, "size": network.size}
        model = cls(fusion, tokenizer, aligner, video_encoder, normalize, **reading)
        model.backbone_name = backbone
        if calibrated and found.calibration.is_file():
            model.calibration = Calibration.load(found.calibration)
            if model.calibration.about.get("weights") != weights_sha256(fusion):
                raise ValueError(
                    f"{found.calibration}: made with other weights than {source} has now. Remove it, or "
                    "write it anew: mmpt calibrate"
                )
        return model.eval(), tokenizer, aligner

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config, weights, tokenizer and a card; `from_pretrained(folder)` reads them. The video
        backbone is not copied."""
        if hasattr(self.fusion, "save"):
            self.fusion.save(folder)
            self.tokenizer.save_pretrained(folder)
        else:
            write_folder(folder, self.fusion, self.tokenizer)
        if self.calibration is not None:
            self.calibration.save(Path(folder) / f"model{CALIBRATION}")
            note_in_card(Path(folder) / CARD, self.calibration)

    def forward(
        self, video_frames: Tensor, caps: Tensor, cmasks: Tensor, return_score: bool = False
    ) -> dict[str, Tensor]:
        """Videos with their captions.

        Args:
            video_frames: (B, T, FPS, H, W, 3) RGB in [0, 1], or uint8; or features (B, T, D). Floats
                beyond [0, 1] give one warning.
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
    def model(self) -> nn.Module:
        """`fusion`, by the name that papers print."""
        return self.fusion

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
        _warn_of_range(video)
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
        each = [self._long_video(vfeats[None]).pooled for vfeats in self._each_video(videos)]
        if not each:
            raise ValueError("encode_video got no videos.")
        vectors = self._comparable(torch.cat(each))
        return _array(vectors) if numpy else vectors

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
        for video_id, vector in self.one_by_one(folder, self.encode_video, progress, on_failure):
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
        vectors = self._comparable(self._encode_bounds(vfeats[None], bounds).pooled)
        return vectors, torch.tensor(bounds, dtype=torch.float32, device=self.device)

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

        Returns:
            With `calibrated` where the model was calibrated for alignments made in the same way.
        """
        window_s = min(window_s, self.max_video_len)
        vectors, windows = self.encode_windows(video, window_s, stride_s)
        text = self.encode_text(captions)
        found = align_captions(list(captions), text, vectors, windows, relaxed, epsilon)
        way = {"window_s": window_s, "stride_s": stride_s, "relaxed": relaxed, "epsilon": epsilon}
        if self.calibration is None or not way.items() <= self.calibration.settings.items():
            return found
        return dataclasses.replace(found, calibrated=spans_of(self.calibration, found))

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
        for video_id, (vector, window) in self.one_by_one(videos, encode, progress, on_failure):
            ids += [video_id] * len(window)
            windows.append(_array(window))
            vectors.append(_array(vector))
        if not ids:
            raise ValueError("index got no usable videos.")
        return MomentIndex(np.array(ids), np.concatenate(windows), np.concatenate(vectors))

    def search(self, index: MomentIndex, text: str, k: int = 5) -> list[Moment]:
        """The k moments of an index that fit a text best."""
        return index.search(self.encode_text(text, numpy=True)[0], k)

    def one_by_one(
        self,
        videos: str | Path | Mapping[str, Video],
        encode: Callable[[Video], Result],
        progress: Callable[[Iterable], Iterable],
        on_failure: Callable[[str, Exception], None] | None,
    ) -> Iterator[tuple[str, Result]]:
        """(id, what `encode` makes of the video) of each video; arguments as in `encode_folder`."""
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
                'its backbone to read files or frames, such as video_encoder="s3d".'
            )
        if self.sound is not None:
            raise ValueError("this model hears: give a file with sound, or features (T, D), not frames.")
        scaled = frames.to(self.device)
        scaled = scaled.to(self.dtype) / 255 if scaled.dtype == torch.uint8 else scaled.to(self.dtype)
        features = self.video_encoder(scaled.permute(0, 4, 1, 2, 3))
        features = features["video_embedding"] if isinstance(features, dict) else features
        return self._scaled(features)

    def _each_video(self, videos: Video | Sequence[Video]) -> Iterable[Tensor]:
        """Features (T, D) of each video."""
        is_batch = isinstance(videos, (np.ndarray, Tensor)) and videos.ndim in (3, 6)
        several = is_batch or not isinstance(videos, (str, Path, np.ndarray, Tensor))
        each: Any = videos if several else [videos]
        return (self._one_video(video) for video in each)

    def _one_video(self, video: Video) -> Tensor:
        """Features (T, D) of one video, however it is given."""
        if isinstance(video, (str, Path)) and Path(video).suffix != ".npy":
            vfeats = torch.cat(list(self._file_features(video)))
        else:
            loaded = _load(video) if isinstance(video, (str, Path)) else video
            vfeats = self.features(torch.as_tensor(loaded)[None])[0]
        if not torch.isfinite(vfeats).all():
            raise ValueError(
                f"{video if isinstance(video, (str, Path)) else 'a video'}: features are not finite."
            )
        return vfeats

    def _file_features(self, path: str | Path) -> Iterator[Tensor]:
        """Features of the seconds of a video file, or of the sound of any file for a model that hears."""
        if self.sound is None:
            for seconds in read_seconds(path, self.fps, self.size, chunk_s=SECONDS_PER_STEP):
                yield self._backbone(torch.from_numpy(seconds))
            return
        for waves in read_audio_windows(path, self.sound.sample_rate, self.sound.window_s):
            heard = torch.from_numpy(self.sound.prepare(waves)).to(self.device, self.dtype)
            assert self.video_encoder is not None  # it comes with `sound`
            yield self._scaled(self.video_encoder(heard))

    def _comparable(self, vectors: Tensor) -> Tensor:
        """As they are compared: of unit length where the model compares cosines."""
        return functional.normalize(vectors, dim=-1) if self.unit_vectors else vectors

    def _scaled(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=-1) if self.normalize else features

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
        head = self.aligner.pack([[]])[0][:, :2].to(self.device)  # [CLS] [SEP], which a video tower reads
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


def _warn_of_range(frames: Tensor) -> None:
    """Warn of frames as no backbone was trained on. They go through it all the same: papers print a call on
    noise."""
    low, high = frames.aminmax()
    if frames.dtype != torch.uint8 and (low < 0 or high > 1):
        found = f"{low:.3g} to {high:.3g}"
        text = "expected frames of type uint8 or floats in [0, 1], got floats from %s; divide pixels by 255."
        warnings.warn(text % found, stacklevel=2)


def _load(path: str | Path) -> np.ndarray:
    """The array in a `.npy` file."""
    try:
        return open_npy(Path(path), any_order=True)
    except ValueError as error:
        raise ValueError(f"{path}: not a .npy file of features, or a damaged one ({error}).") from error


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
