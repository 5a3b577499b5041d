"""Films made on the spot, whose frames show their numbers; one of each container and codec that can be encoded."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

SIZE = (48, 32)
CONSTANT = [40 * k for k in range(90)]  # 25 fps in ms
VARIABLE = [20 * min(k, 30) + 150 * min(max(k - 30, 0), 20) + 40 * max(k - 50, 0) for k in range(90)]


def drawn(k: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that shows its number: 8 bits as vertical bars, and a corner block."""
    width, height = size
    array = np.full((height, width, 3), 40, np.uint8)
    for bit in range(8):
        if k >> bit & 1:
            array[height // 2 :, bit * width // 8 : (bit + 1) * width // 8] = 230
    array[: height // 4, : width // 4] = (250, 20, 20)
    return array


def number(image: Image.Image) -> int:
    array = np.asarray(image.convert("L")).astype(int)
    height, width = array.shape
    return sum(1 << bit for bit in range(8) if array[height * 3 // 4, (2 * bit + 1) * width // 16] > 135)


def write(
    path: Path,
    stamps: Sequence[int],
    codec: str = "libx264",
    form: str | None = None,
    size: tuple[int, int] = SIZE,
    **options: str,
) -> Path:
    """Encodes one numbered frame for each time stamp (ms), with key frames 12 apart."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.width, stream.height = size
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        base = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 1000)  # MPEG-2 knows a few rates only
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.gop_size = 12
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(drawn(k, size), "rgb24")
            frame.pts, frame.time_base = int(stamp), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def all_frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_image().tobytes() for frame in container.decode(video=0)]


KINDS = {
    "constant.mp4": (CONSTANT, "libx264", {}),
    "b-frames.mp4": (CONSTANT, "libx264", {"x264-params": "bframes=4:open-gop=1:keyint=12:scenecut=0"}),
    "pyramid.mp4": (CONSTANT, "libx264", {"x264-params": "bframes=5:b-pyramid=normal:b-adapt=0:keyint=45:scenecut=0"}),
    "interlaced.ts": (CONSTANT, "libx264", {"x264-params": "tff=1:bframes=3:b-adapt=0:keyint=30:scenecut=0"}),
    "intra.mp4": (CONSTANT, "libx264", {"x264-params": "keyint=1"}),
    "one-key.mp4": (CONSTANT, "libx264", {"x264-params": "keyint=999:scenecut=0"}),
    "variable.mp4": (VARIABLE, "libx264", {}),
    "variable.mkv": (VARIABLE, "libx264", {}),
    "variable.ts": (VARIABLE, "libx264", {}),
    "mpeg2.ts": (CONSTANT, "mpeg2video", {"bf": "2"}),
    "vp8.webm": (CONSTANT, "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9.webm": (VARIABLE, "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    "mpeg4.avi": (CONSTANT, "mpeg4", {}),
    "b-frames.avi": (CONSTANT, "mpeg4", {"bf": "2"}),
    "mjpeg.avi": (CONSTANT, "mjpeg", {}),
    "variable.gif": (VARIABLE, "gif", {}),
    "raw.h264": (CONSTANT, "libx264", {}),
}


def film(films: dict[str, Path], name: str) -> Path:
    if name not in films:
        pytest.skip(f"this FFmpeg cannot encode {KINDS[name][1]}")
    return films[name]
