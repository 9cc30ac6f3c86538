"""Small video and audio files for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def write_video(path, times_ms, shade=lambda i: 20 * i, size=(64, 48), codec="mpeg4", pix_fmt="yuv420p"):
    """A video whose frame i is grey of value shade(i) (or an image that shade(i) broadcasts to) and is shown
    from times_ms[i] on."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times_ms):
            image = np.ascontiguousarray(
                np.broadcast_to(np.asarray(shade(i), np.uint8), (size[1], size[0], 3))
            )
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def write_audio(path, samples, rate=8000, layout="mono"):
    """A wave file; samples (channels, n) int16."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.reshape(1, -1)), format="s16", layout=layout
        )
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def write_clip(path, n_seconds, fps=10, rate=8000, size=(64, 48)):
    """Video and sound that tell the time: frame i is grey of value 2 i, second s is noise of amplitude 1000
    (s + 1)."""
    import av

    loud = 1000 * (1 + np.arange(n_seconds * rate) // rate)
    wave = (loud * np.random.default_rng(0).uniform(-1, 1, len(loud))).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "1", "g": "25"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for i in range(n_seconds * fps):
            image = np.full((size[1], size[0], 3), 2 * i, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            sound = av.AudioFrame.from_ndarray(
                wave[i * rate // fps : (i + 1) * rate // fps][None], format="s16", layout="mono"
            )
            sound.sample_rate, sound.pts = rate, i * rate // fps
            container.mux(audio.encode(sound))
        container.mux([*video.encode(), *audio.encode()])
    return Path(path)


def write_stamped(path, frames, sounds, jump=None):
    """Grey frames (second, shade) and stretches of sound (second, length, loudness) with exact stamps, which
    from second `jump[0]` on are later by `jump[1]` s."""
    import av

    codec, rate = ("mp2", 16_000) if path.suffix == ".ts" else ("pcm_s16le", 8000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=1000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(codec, rate=rate, layout="mono")
        packets = []
        for time, shade in frames:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            packets += video.encode(frame)
        for time, length, loudness in sounds:
            for k in range(round(10 * length)):  # pieces of a tenth
                tone = np.repeat([loudness, -loudness], rate // 2000)  # of a kilohertz
                wave = np.resize(tone, rate // 10).astype(np.int16)
                sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
                sound.sample_rate, sound.pts = rate, round((time + k / 10) * rate)
                packets += audio.encode(sound)
        packets += [*video.encode(), *audio.encode()]
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            if jump and packet.dts * packet.time_base >= jump[0]:
                packet.pts += round(jump[1] / packet.time_base)
                packet.dts += round(jump[1] / packet.time_base)
            container.mux(packet)
    return path
