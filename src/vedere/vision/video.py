"""Video files to the frames that a rule takes (`vedere.vision.frames`), decoding little else.

**Finding a frame.** Frame i is the i-th presentation timestamp. One pass over the packets, without decoding, lists
all timestamps and key frames; then each wanted frame is reached from the last key frame before it, by seeking where
that leaves out more frames than a decoder takes ahead, else by decoding on: no set of frames costs more than the whole
file. A frame is recognised by its timestamp, so an inexact seek is noticed and repeated from further back; if nothing
helps, the file is decoded from its start. On the way to a wanted frame, frames that no
other one is made from are left out (H.264, HEVC), which saves up to half. Decoded frames are those of a full decode,
bit by bit. Streams without timestamps (raw H.264) are always decoded from the start.

**Variable frame rate.** The originals count frames as if they were evenly spaced. Here, by default, the rule runs on an
even timeline of as many frames, and each point takes the frame that is on the screen then; at constant frame rate both
are the same. ``timeline="frames"`` gives the originals' counting.

**The same file gives the same frames**, a damaged one too: decoding uses one thread. Several would conceal damage
with whatever their neighbours had finished at that moment, and not even mark every such frame.

Rotation and mirroring of the display matrix are applied. Pixel aspect ratios are ignored, as all the originals do.
Cost: listing packets reads the file once, about 5 us a packet (half a second for an hour), plus one group of pictures
for each wanted frame.
"""

from __future__ import annotations

import bisect
import contextlib
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from PIL import Image

from vedere.errors import ConfigError, MediaError
from vedere.vision.container import VideoSource, damage, open_container
from vedere.vision.frames import Clip, FrameRule, frame_indices
from vedere.vision.pixels import MAX_PIXELS, describe

Timeline = Literal["time", "frames"]
Size = tuple[int, int]

_NOMINAL_FPS = 25.0  # of a stream that names none
_NEAR = 16  # a seek that leaves out so many frames is not worth it: a decoder may have taken as many packets ahead
_UNSEEN = 2  # packets in a row that may hold no frame of their own (VP8 has invisible ones; a last one may be cut)
_BY_DTS = ("mpegts", "mpeg")  # containers whose seeks look for decoding timestamps
_TELLING = ("h264", "hevc")  # decoders that can leave out frames that no other one needs
_TURNS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_CLOCKWISE = {
    Image.Transpose.ROTATE_180: 180,
    Image.Transpose.ROTATE_270: 90,
    Image.Transpose.TRANSPOSE: 90,
    Image.Transpose.ROTATE_90: 270,
    Image.Transpose.TRANSVERSE: 270,
}


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file says about itself, checked against its packets.

    Attributes:
        width: Width of the upright frames in pixels.
        height: Height of the upright frames in pixels.
        frames: Frames in the file.
        fps: Frames per second; the mean where the rate varies.
        duration: Seconds from the first frame to the end of the last one.
        rotation: Clockwise degrees by which stored frames were turned: 0, 90, 180 or 270.
        has_audio: Whether there is an audio stream.
        variable_rate: Whether timestamps leave an even spacing by more than half a frame.
    """

    width: int
    height: int
    frames: int
    fps: float
    duration: float
    rotation: int
    has_audio: bool
    variable_rate: bool


@dataclass(frozen=True)
class Video:
    """Sampled frames.

    Attributes:
        frames: Upright RGB pictures of one size, in temporal order (a short video repeats frames).
        indices: Index of each in the file, in presentation order.
        times: Seconds from the first frame of the file, from its timestamps.
        info: The file's properties.
    """

    frames: list[Image.Image]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    info: VideoInfo

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames as they are here, after ``resize``: plan with this."""
        return self.frames[0].size


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    is_key: bool
    duration: int


@dataclass(frozen=True)
class _Index:
    """Timestamps of one video stream, found without decoding.

    Attributes:
        pts: Presentation timestamps in order; None if the stream has no usable ones.
        seconds: The same from the first frame on, in seconds.
        keys: (pts, dts) of the key frames, in order: containers differ in which of them a seek looks for.
        fps: Mean frames per second.
        variable: Whether the spacing is uneven.
        by_dts: A seek looks for decoding timestamps: by presentation ones it would land a group of pictures late.
    """

    pts: list[int] | None
    seconds: list[float]
    keys: list[tuple[int, int | None]]
    fps: float
    variable: bool
    by_dts: bool = False


def _video_stream(container: Any, name: str) -> Any:
    import av

    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:  # cover art of music
            if stream.codec_context is None:
                raise MediaError(f"{name} has a video stream of an unknown codec; convert it, for example to H.264")
            stream.codec_context.thread_count = 1  # decoders with threads of their own (AV1) ask only for this
            stream.thread_type = "NONE"  # frame threads conceal damage by what the other thread has finished just then
            return stream
    what = "only audio" if container.streams.audio else "no video stream"
    raise MediaError(f"{name} holds {what}; expected a file with a video stream")


def _promised_end(container: Any, stream: Any) -> float | None:
    """Seconds at which the video should end according to headers that were written when it was whole."""
    if container.format.name.startswith("mov"):
        return None if stream.duration is None else float(stream.duration * stream.time_base)
    if container.format.name.startswith("matroska") and len(container.streams) == 1 and container.duration:
        return float(container.duration / 1_000_000)
    return None


def _read_packets(container: Any, stream: Any) -> tuple[list[_Packet], Any]:
    """All packets of a stream, and its first frame (None if there is none): decoding stops there."""
    packets, frame = list[_Packet](), None
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.duration or 0))
        if frame is None:
            with contextlib.suppress(*damage()):
                frame = next(iter(packet.decode()), None)
    return packets, frame


def _index(container: Any, stream: Any, packets: list[_Packet], name: str) -> _Index:
    """Orders packets in time.

    Raises:
        MediaError: no packets, or far fewer than the header promises.
    """
    if not packets:
        raise MediaError(
            f"{name} has a video stream without frames; expected at least 1: fetch or write the file again"
        )
    nominal = float(stream.average_rate or stream.guessed_rate or 0) or _NOMINAL_FPS
    pts: list[int] | None = sorted(packet.pts for packet in packets if packet.pts is not None)
    if len(set(pts or ())) != len(packets):  # none (raw streams), or ambiguous ones (B-frames in AVI)
        pts = None
    stamps = pts or sorted({packet.dts for packet in packets if packet.dts is not None})
    if len(stamps) != len(packets):
        return _Index(None, [k / nominal for k in range(len(packets))], [], nominal, False)
    base = float(stream.time_base)
    seconds = [(stamp - stamps[0]) * base for stamp in stamps]
    promised = _promised_end(container, stream)
    tail = max(packet.duration for packet in packets) * base
    if promised is not None and seconds[-1] + max(tail, 0.5) < 0.95 * promised:
        raise MediaError(
            f"{name} ends after {seconds[-1]:.2f} s of {promised:.2f} s; the file is truncated: fetch it again"
        )
    fps = (len(stamps) - 1) / seconds[-1] if len(stamps) > 1 else nominal
    if len(stamps) > 1 and abs(nominal - fps) <= fps * (base / seconds[-1] + 1e-6):
        fps = nominal  # the same within the rounding of timestamps
    variable = any(abs(at - k / fps) > 0.5 / fps for k, at in enumerate(seconds))
    keys = sorted((packet.pts, packet.dts) for packet in packets if packet.is_key and packet.pts is not None)
    return _Index(pts, seconds, keys, fps, variable, container.format.name in _BY_DTS)


def _turn(frame: Any) -> Image.Transpose | None:
    """The transposition that the display matrix asks for; angles in between are rounded to a quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = struct.unpack("=9i", bytes(data))
    xx, xy, yx, yy = matrix[0], matrix[1], matrix[3], matrix[4]
    sign = [(value > 0) - (value < 0) for value in (xx, xy, yx, yy)]
    if abs(xx) >= abs(xy):
        return _TURNS.get((sign[0], 0, 0, sign[3]))
    return _TURNS.get((0, sign[1], sign[2], 0))


def _rgb(frame: Any, converter: Any) -> Image.Image:
    """The picture of ``frame.to_image()``, without its extra copy and with one converter for many frames: half the time."""
    plain = converter.reformat(frame, format="rgb24", threads=1)
    (plane,) = plain.planes
    if plane.line_size < 0:  # the last row comes first
        image: Image.Image = frame.to_image()
        return image
    return Image.frombytes("RGB", (plain.width, plain.height), plane, "raw", "RGB", plane.line_size, 1)


def _upright(frame: Any, name: str, max_pixels: int, converter: Any) -> Image.Image:
    if frame.width * frame.height > max_pixels:
        raise MediaError(
            f"{name} has frames of {frame.width} x {frame.height} px; at most {max_pixels} px are decoded: "
            "make it smaller, or raise max_pixels if you trust it"
        )
    image = _rgb(frame, converter)
    turn = _turn(frame)
    return image if turn is None else image.transpose(turn)


def _until_damage(frames: Iterable[Any]) -> Iterator[Any]:
    """Frames up to the first one that cannot be decoded; whoever misses one notices that it is missing."""
    with contextlib.suppress(*damage()):
        yield from frames


def _collect(
    frames: Iterable[Any], wanted: list[int], pts: list[int], take: Callable[[int, Any], None], done: set[int]
) -> None:
    """Takes wanted frames out of a run of decoded ones, until the last one was seen.

    A wanted packet without a frame of its own gives the frame on the screen: the one before, if that is near.
    """
    previous, at = None, 0
    for frame in frames:
        if frame.pts is None:
            continue
        while at < len(wanted) and pts[wanted[at]] < frame.pts:
            if previous is not None and wanted[at] - bisect.bisect_right(pts, previous.pts) < _UNSEEN:
                take(wanted[at], previous)
                done.add(wanted[at])
            at += 1
        if at < len(wanted) and pts[wanted[at]] == frame.pts:
            take(wanted[at], frame)
            done.add(wanted[at])
            at += 1
        previous = frame
        if at == len(wanted):
            return
    for index in wanted[at:]:  # the end: a cut or invisible last packet
        if previous is not None and index - bisect.bisect_right(pts, previous.pts) < _UNSEEN:
            take(index, previous)
            done.add(index)


def _runs(wanted: list[int], index: _Index) -> list[tuple[int, list[int]]]:
    """Wanted frames grouped by the key frame to start from: (position in ``index.keys``, frames).

    A seek is worth what it leaves out: the frames between the last wanted one and the next key frame to start from. How far
    the wanted ones are apart says nothing: with the last frame of every group wanted, a seek leaves out nothing, and the
    packets that the decoder had taken ahead are decoded twice.
    """
    assert index.pts is not None
    starts = [key[0] for key in index.keys]
    runs: list[tuple[int, list[int]]] = []
    for frame in wanted:
        key = bisect.bisect_right(starts, index.pts[frame]) - 1
        start = bisect.bisect_left(index.pts, starts[key]) if key >= 0 else 0
        if runs and (key <= runs[-1][0] or start - runs[-1][1][-1] <= _NEAR):
            runs[-1][1].append(frame)
        else:
            runs.append((key, [frame]))
    return runs


def _frames(container: Any, stream: Any, wanted: list[int], pts: list[int]) -> Iterator[Any]:
    """Decodes on from here, leaving out what no other frame is made from, except around wanted frames.

    The decoder knows such frames by their headers. Neighbours stay, because a packet may hold half a frame or none.
    """
    if stream.codec_context.name not in _TELLING:
        yield from container.decode(stream)
        return
    near = {pts[place] for index in wanted for place in range(max(0, index - _UNSEEN), min(len(pts), index + _UNSEEN))}
    for packet in container.demux(stream):
        keep = packet.pts is None or packet.pts in near
        stream.codec_context.skip_frame = "DEFAULT" if keep else "NONREF"
        yield from packet.decode()


def _decode(source: VideoSource, index: _Index, wanted: list[int], take: Callable[[int, Any], None]) -> None:
    """Hands each wanted frame (rising, distinct) to ``take``; reports what is missing by an error."""
    import av

    name, done, spent = describe(source), set[int](), 0

    def counted(frames: Iterable[Any]) -> Iterator[Any]:
        nonlocal spent
        for frame in _until_damage(frames):
            spent += 1
            yield frame

    pts = index.pts if index.pts is not None else list(range(len(index.seconds)))
    if index.pts is not None:
        with open_container(source) as container:
            stream = _video_stream(container, name)
            runs = _runs(wanted, index)
            while runs:
                key, run = runs.pop(0)
                places = [place for place in (index.keys[key] if key >= 0 else ()) if place is not None]
                for place in reversed(places) if index.by_dts else places:
                    missing = [frame for frame in run if frame not in done]
                    if not missing or spent > len(pts):
                        break
                    try:
                        container.seek(place, stream=stream)
                    except av.error.FFmpegError:
                        continue
                    _collect(counted(_frames(container, stream, missing, pts)), missing, pts, take, done)
                if runs and spent > run[-1] + 1:  # seeks land too early in this file: what is left in one go
                    runs = [(runs[0][0], [frame for _, later in runs for frame in later])]
    missing = [frame for frame in wanted if frame not in done]
    if missing:  # no timestamps, no usable index, or a seek that landed too late: the whole file, once
        with open_container(source) as container:
            frames = _until_damage(container.decode(_video_stream(container, name)))
            if index.pts is None:
                frames = _numbered(frames)
            _collect(frames, missing, pts, take, done)
    if lost := [frame for frame in wanted if frame not in done]:
        raise MediaError(
            f"{name}: frame {lost[0]} of {len(pts)} cannot be decoded ({len(lost)} of {len(wanted)} wanted frames are "
            "missing); the file is truncated or damaged: fetch it again"
        )


def _numbered(frames: Iterable[Any]) -> Iterator[Any]:
    for number, frame in enumerate(frames):
        frame.pts = number
        yield frame


def _inspect(source: VideoSource, max_pixels: int) -> tuple[VideoInfo, _Index]:
    from av.video.reformatter import VideoReformatter

    name = describe(source)
    with open_container(source) as container:
        stream = _video_stream(container, name)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels:
            raise MediaError(
                f"{name} has frames of {width} x {height} px; at most {max_pixels} px are decoded: "
                "make it smaller, or raise max_pixels if you trust it"
            )
        packets, frame = _read_packets(container, stream)
        index = _index(container, stream, packets, name)
        if frame is None:
            raise MediaError(f"{name} has {len(packets)} frames but none can be decoded; fetch or write the file again")
        turn, size = _turn(frame), _upright(frame, name, max_pixels, VideoReformatter()).size
        has_audio = bool(container.streams.audio)
    info = VideoInfo(
        width=size[0],
        height=size[1],
        frames=len(index.seconds),
        fps=index.fps,
        duration=index.seconds[-1] + 1 / index.fps,
        rotation=0 if turn is None else _CLOCKWISE.get(turn, 0),
        has_audio=has_audio,
        variable_rate=index.variable,
    )
    return info, index


def probe(source: VideoSource, *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Size, length and frame rate of a video; lists its packets and decodes one frame.

    Args:
        source: Path or content of a video file.
        max_pixels: Limit on width x height of a frame.

    Raises:
        MediaError: missing, empty, truncated, undecodable or oversized files, pictures, files without video.
    """
    return _inspect(source, max_pixels)[0]


def _on_screen(points: Iterable[int], index: _Index) -> tuple[int, ...]:
    """Points of an even timeline to the frames that are shown then (up to half a frame of jitter is rounding)."""
    times = [point / index.fps for point in points]
    return tuple(max(0, bisect.bisect_right(index.seconds, at + 1e-6) - 1) for at in times)


def read_frames(
    source: VideoSource,
    count: int,
    rule: FrameRule = "internvl",
    clip: Clip | None = None,
    *,
    rate: float = 1.0,
    rng: random.Random | None = None,
    timeline: Timeline = "time",
    resize: Size | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Video:
    """Decodes the frames that a rule takes.

    Args:
        source: Path or content of a video file.
        count: Wanted frames (for ``fps``: the most).
        rule: See `frame_indices`.
        clip: Limits in seconds from the first frame.
        rate: Frames a second of the rule ``fps``.
        rng: Random source of the rule ``random``.
        timeline: What evenly spaced means at a variable frame rate: ``time``, or ``frames`` as the originals count.
        resize: (width, height) that each frame is brought to (bicubic) as soon as it is decoded. A tiling plan's tile
            size gives the same tiles and keeps memory low: 768 frames of 1080p are 4.8 GB.
        max_pixels: Limit on width x height of a frame.

    Returns:
        The frames, their indices and times; exactly ``count`` of them for all rules but ``fps``.

    Raises:
        MediaError: as `probe`, a clip outside the video, or wanted frames that cannot be decoded.
        ConfigError: as `frame_indices`, or an unknown timeline.
    """
    if timeline not in get_args(Timeline):
        raise ConfigError(f"unknown timeline '{timeline}'; expected one of {', '.join(get_args(Timeline))}")
    info, index = _inspect(source, max_pixels)
    indices = frame_indices(rule, info.frames, index.fps, count, clip, rate=rate, rng=rng)
    if index.variable and timeline == "time":
        indices = _on_screen(indices, index)
    return _taken(source, indices, info, index, resize, max_pixels)


def frames_at(
    source: VideoSource, indices: Sequence[int], *, resize: Size | None = None, max_pixels: int = MAX_PIXELS
) -> Video:
    """Decodes frames that were chosen before.

    Args:
        source: Path or content of a video file.
        indices: Frames, counted from 0 in presentation order, repetitions allowed.
        resize: As in `read_frames`.
        max_pixels: Limit on width x height of a frame.

    Raises:
        MediaError: as `probe`, no such frame, or frames that cannot be decoded.
    """
    info, index = _inspect(source, max_pixels)
    wrong = [one for one in indices if not 0 <= one < info.frames]
    if wrong or not indices:
        asked = f"frame {wrong[0]}" if wrong else "no frame"
        raise MediaError(f"{describe(source)}: {asked} was asked for; it has frames 0 to {info.frames - 1}")
    return _taken(source, tuple(indices), info, index, resize, max_pixels)


def _taken(
    source: VideoSource, indices: tuple[int, ...], info: VideoInfo, index: _Index, resize: Size | None, max_pixels: int
) -> Video:
    from av.video.reformatter import VideoReformatter

    name, size = describe(source), resize or (info.width, info.height)
    found: dict[int, Image.Image] = {}
    converter = VideoReformatter()

    def take(place: int, frame: Any) -> None:
        image = _upright(frame, name, max_pixels, converter)
        # A stream may change its size on the way; a plan has one size.
        found[place] = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)

    _decode(source, index, sorted(set(indices)), take)
    return Video(
        frames=[found[place] for place in indices],
        indices=indices,
        times=tuple(index.seconds[place] for place in indices),
        info=info,
    )
