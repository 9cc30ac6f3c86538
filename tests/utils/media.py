"""Small video and audio files for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def write_video(path, times_ms, shade=lambda i: 20 * i, size=(64, 48), codec="mpeg4", pix_fmt="yuv420p"):
    """A video whose frame i is grey of value shade(i) (or an image that shade(i) broadcasts to) and is shown from times_ms[i] on."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times_ms):
            image = np.ascontiguousarray(np.broadcast_to(np.asarray(shade(i), np.uint8), (size[1], size[0], 3)))
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
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.reshape(1, -1)), format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)
