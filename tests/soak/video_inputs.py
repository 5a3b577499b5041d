"""Videos, damaged: what `vedere.vision.video` makes of them."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
from cases import Case, law
from mutations import NUMBERS, damage, number_early, splice

from vedere.plan import TilingPolicy, plan_media
from vedere.vision.frames import FrameRule
from vedere.vision.pixels import media_tiles
from vedere.vision.video import probe, read_frames

FRAMES = 14
EVEN = [40 * k for k in range(FRAMES)]
UNEVEN = [40 * k + 15 * (k % 3) + 400 * (k > 8) for k in range(FRAMES)]
RULES = get_args(FrameRule)
POLICY = TilingPolicy(tile=28, patch=7)
KINDS: dict[str, tuple[str, Sequence[int], dict[str, str]]] = {
    "h264.mp4": ("libx264", EVEN, {"x264-params": "bframes=2:keyint=6"}),
    "uneven.mp4": ("libx264", UNEVEN, {"x264-params": "keyint=6"}),
    "mpeg4.mp4": ("mpeg4", EVEN, {}),
    "h264.mkv": ("libx264", UNEVEN, {"x264-params": "keyint=6"}),
    "vp8.webm": ("libvpx", EVEN, {"deadline": "realtime"}),
    "vp9.webm": ("libvpx-vp9", EVEN, {"cpu-used": "8", "deadline": "realtime"}),
    "mpeg4.avi": ("mpeg4", EVEN, {}),
    "mjpeg.mov": ("mjpeg", EVEN, {}),
    "mpeg2.ts": ("mpeg2video", EVEN, {}),
    "moving.gif": ("gif", EVEN, {}),
    "flash.flv": ("flv", EVEN, {}),
    "raw.h264": ("libx264", EVEN, {"x264-params": "keyint=6"}),
}
# Fields of MP4 that say how many, how large, where and when.
BOXES = b"mvhd tkhd mdhd stts ctts stsc stsz stco stss elst avc1 avcC hdlr moov trak mdia stbl mdat ftyp".split()


def _frame(k: int) -> np.ndarray[Any, Any]:
    array = np.full((32, 48, 3), 60, np.uint8)
    array[:, (3 * k) % 44 : (3 * k) % 44 + 4] = (230, 30 + 9 * k, 40)
    return array


def _write(path: Path, codec: str, stamps: Sequence[int], options: dict[str, str], sound: bool) -> bytes:
    import av

    flags = {"movflags": "+faststart"} if "uneven" in path.name else {}
    with av.open(str(path), "w", options=flags) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.width, stream.height = 48, 32
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        base = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.gop_size = 6
        voice: Any = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(_frame(k), "rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            noise = np.zeros((1, 4096), np.float32)
            tone = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            tone.sample_rate = 16000
            container.mux(voice.encode(tone))
            container.mux(voice.encode(None))
    return path.read_bytes()


def _box(data: bytes, rng: random.Random) -> bytes:
    """An extreme number in one of the boxes of an MP4."""
    box = rng.choice([kind for kind in BOXES if kind in data] or [data[4:8]])
    at = data.index(box) + rng.choice((-4, 4, 8, 12, 16, 20, 24, 28, 32, 36, 76, 80))
    at = max(0, min(at, len(data) - 4))
    return data[:at] + struct.pack(">I", rng.choice(NUMBERS)) + data[at + 4 :]


class Videos:
    """Files and bytes of short clips."""

    def __init__(self, folder: Path) -> None:
        import av

        self.good = {
            name: _write(folder / name, codec, stamps, options, name in ("mpeg4.mp4", "h264.mkv"))
            for name, (codec, stamps, options) in KINDS.items()
            if codec in av.codecs_available
        }

    def case(self, rng: random.Random, folder: Path) -> Case:
        name = rng.choice(list(self.good))
        data, expect, what = self.good[name], "either", ""
        draw = rng.random()
        if draw < 0.05:
            expect, what = "works", "as it is"
        elif draw < 0.08:
            data, expect = (
                rng.choice((b"", b"\0", b"#EXTM3U\n/etc/hostname\n", b"ffconcat version 1.0\nfile x\n")),
                "refused",
            )
            name, what = "no video", "other content"
        elif draw < 0.14:
            data, what = splice(data, self.good[rng.choice(list(self.good))], rng), "splice"
        elif draw < 0.40 and name.endswith((".mp4", ".mov")):
            data, what = _box(data, rng), "number in box"
        elif draw < 0.50:
            data, what = number_early(data, rng), "number in header"
        else:
            data, what = damage(data, rng)
        ending = Path(name).suffix if rng.random() < 0.8 else rng.choice((".mp4", ".avi", ".txt", ".png", ".m3u8", ""))
        path = folder / f"clip{ending}"
        path.write_bytes(data)
        source: Any = path
        names: tuple[str, ...] = (path.name,)
        if rng.random() < 0.3:
            source, names = data, (f"{len(data)} bytes",)
        rule: FrameRule = rng.choice(RULES)
        count, seed = rng.choice((1, 2, 5, 20)), rng.randrange(100)
        clip = None
        if rng.random() < 0.2:
            clip = rng.choice(((0.0, 0.3), (0.1, 9.0), (0.2, 0.21), (5.0, 6.0), (0.3, 0.1)))
            names = (*names, "clip from")
            expect = "either"
        return Case(
            what=f"{name}: {what}",
            names=names,
            expect=expect,
            run=lambda: check_video(source, rule, count, clip, seed),
        )


def check_video(source: Any, rule: FrameRule, count: int, clip: tuple[float, float] | None, seed: int) -> None:
    """Probes and samples a video, and follows the plan of its frames."""
    info = probe(source)
    law(info.width > 0 and info.height > 0 and info.frames > 0, f"{info}")
    law(0 < info.fps < math.inf and 0 < info.duration < math.inf, f"{info}")
    video = read_frames(source, count, rule, clip, rng=random.Random(seed), resize=(28, 28))
    law(video.info == info, "probe and read_frames disagree")
    law(len(video.frames) == len(video.indices) == len(video.times), "frames, indices and times differ in number")
    law(len(video.frames) == count if rule != "fps" else 1 <= len(video.frames) <= count, f"{len(video.frames)} frames")
    law(all(0 <= index < info.frames for index in video.indices), f"indices {video.indices} of {info.frames}")
    law(list(video.indices) == sorted(video.indices), f"indices {video.indices} fall")
    law(list(video.times) == sorted(video.times), f"times {video.times} fall")
    law(all(math.isfinite(at) and at >= 0 for at in video.times), f"times {video.times}")
    law(all(frame.mode == "RGB" and frame.size == (28, 28) for frame in video.frames), "frames of the wrong kind")
    plan = plan_media(*video.size, POLICY, frames=len(video.frames))
    tiles = media_tiles(video.frames, plan)
    law(tiles.dtype == np.uint8 and tiles.shape == (len(video.frames), 3, 28, 28), f"{tiles.dtype} {tiles.shape}")
    again = read_frames(source, count, rule, clip, rng=random.Random(seed), resize=(28, 28))
    same = all(one.tobytes() == other.tobytes() for one, other in zip(video.frames, again.frames, strict=True))
    law(same and again.indices == video.indices, "reading twice gives different frames")


def make(folder: Path) -> Videos:
    """The family; encodes its clips into ``folder``."""
    return Videos(folder)
