"""Networks that turn pictures, sound and words into features; one import line a file registers them."""

from mmpt.backbones import audio, beats, eva_clip, external, r2plus1d, s3d
from mmpt.backbones.backbone import audio_backbone, video_backbone
