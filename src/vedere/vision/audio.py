"""The sound track of a video file as mono samples, and as a file that a model can be given.

Video-MME (arXiv 2405.21075) keeps all 900 sound tracks inside the video files. Times count from the start of the
file: where the track begins later than the picture, silence stands before it, so that a transcript's times are the
frames' times. What cannot be decoded in the middle of a track is left out by the decoder; a track without one
readable sample is an error.

Cost: decoding, about a second for ten minutes; 4 bytes a sample, 230 MB for an hour at 16 kHz.
"""

from __future__ import annotations

import contextlib
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedere.errors import ConfigError, MediaError
from vedere.vision.container import VideoSource, damage, open_container
from vedere.vision.pixels import describe

SPEECH_RATE = 16_000
"""Samples a second that speech recognition models read."""


@dataclass(frozen=True)
class Audio:
    """Mono sound.

    Attributes:
        samples: float32 [S] in -1..1.
        rate: Samples a second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate


def read_audio(source: VideoSource, rate: int = SPEECH_RATE) -> Audio:
    """Decodes the first sound track, mixed to one channel.

    Args:
        source: Path or content of a video or audio file.
        rate: Samples a second to resample to.

    Raises:
        MediaError: as `vedere.vision.video.probe`, or a file without a sound track that can be decoded.
        ConfigError: a rate that is not positive.
    """
    if rate < 1:
        raise ConfigError(f"rate {rate}; expected samples a second, such as {SPEECH_RATE}")
    name = describe(source)
    with open_container(source) as container:
        if not container.streams.audio:
            raise MediaError(f"{name} has no sound track; expected one: use a setting without audio for this video")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError(f"{name} has a sound track of an unknown codec; convert it, for example to AAC")
        pieces = list(_pieces(container, stream, rate))
    if not pieces:
        raise MediaError(f"{name} has a sound track of which nothing can be decoded; fetch or write the file again")
    return Audio(np.concatenate(pieces), rate)


def _pieces(container: Any, stream: Any, rate: int) -> Iterator[NDArray[np.float32]]:
    import av

    # In whole numbers the mix of channels is scaled to their range; in floats it may leave -1..1.
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    begun = False
    for packet in container.demux(stream):
        frames: list[Any] = []
        with contextlib.suppress(*damage()):
            frames = list(packet.decode())
        for frame in frames:
            if not begun and frame.time is not None:
                late = frame.time - (container.start_time or 0) / 1_000_000
                yield np.zeros(max(0, round(late * rate)), np.float32)
            begun = True
            frame.pts = None  # gaps in the timestamps are not filled, as players do
            yield from map(_floats, resampler.resample(frame))
    if begun:
        yield from map(_floats, resampler.resample(None))


def _floats(frame: Any) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = (frame.to_ndarray()[0] / 32768).astype(np.float32)
    return samples


def write_audio(audio: Audio, path: Path) -> Path:
    """Writes sound as a file: ``.wav`` (16 bit) or ``.mp3`` (64 kbit/s, 29 MB an hour).

    Raises:
        ConfigError: another ending.
        MediaError: no samples.
    """
    if not len(audio.samples):
        raise MediaError("a sound of 0 samples cannot be written; expected at least 1")
    whole = (np.clip(audio.samples, -1, 1) * 32767).astype("<i2")
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.rate)
            file.writeframes(whole.tobytes())
        return path
    if path.suffix != ".mp3":
        raise ConfigError(f"a sound file named '{path.name}'; expected .wav or .mp3")
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libmp3lame", rate=audio.rate)
        stream.layout, stream.bit_rate = "mono", 64_000
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=audio.rate)
        for start in range(0, len(whole), audio.rate):
            frame = av.AudioFrame.from_ndarray(whole[None, start : start + audio.rate], format="s16p", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = audio.rate, start, Fraction(1, audio.rate)
            for made in resampler.resample(frame):
                container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return path
