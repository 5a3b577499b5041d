"""Videos made on the spot: sampling equals decoding everything, and what is no video is refused."""

import random
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from drawn_films import CONSTANT, KINDS, SIZE, VARIABLE, all_frames, film, number, write
from PIL import Image

from vedere.errors import ConfigError, MediaError
from vedere.plan import TilingPolicy, plan_media
from vedere.vision import media_tiles, probe, read_frames


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same MP4 with another display matrix in its track header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + (32 if content[content.index(b"tkhd") + 4] else 20) + 16
    values = [value << 16 for value in matrix]
    content[at : at + 36] = struct.pack(">9i", values[0], values[1], 0, values[2], values[3], 0, 0, 0, 1 << 30)
    result = path.with_name(f"turned{matrix}.mp4")
    result.write_bytes(content)
    return result


@pytest.mark.parametrize("name", KINDS)
def test_sampled_frames_are_those_of_a_full_decode(films: dict[str, Path], name: str) -> None:
    path = film(films, name)
    expected = all_frames(path)
    assert len(expected) == 90
    rng = random.Random(5)
    for rule, count in (("internvl", 1), ("internvl", 4), ("linspace", 7), ("random", 20), ("middle", 90)):
        video = read_frames(path, count, rule, rng=rng, timeline="frames")
        assert len(video.frames) == len(video.indices) == len(video.times) == count
        assert [frame.tobytes() for frame in video.frames] == [expected[index] for index in video.indices]


def test_sampled_frames_of_hevc_are_those_of_a_full_decode(tmp_path: Path) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this FFmpeg cannot encode HEVC")
    # Larger than the others: x265 is not safe with pictures smaller than its blocks.
    params = "bframes=3:keyint=30:b-pyramid=1:open-gop=1:log-level=none:pools=none:scenecut=0"
    path = write(tmp_path / "a.mp4", CONSTANT, "libx265", size=(192, 128), **{"x265-params": params})
    expected = all_frames(path)
    for rule, count in (("internvl", 1), ("linspace", 7), ("middle", 90)):
        video = read_frames(path, count, rule, timeline="frames")
        assert [frame.tobytes() for frame in video.frames] == [expected[index] for index in video.indices]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "raw.h264"])
def test_times_are_the_encoded_timestamps(films: dict[str, Path], name: str) -> None:
    stamps, path = KINDS[name][0], film(films, name)
    video = read_frames(path, 90, "middle", timeline="frames")
    rounding = 0.011 if name.endswith(".gif") else 0.0011  # GIF counts in 1/100 s
    assert video.indices == tuple(range(90)) or len(set(video.indices)) > 45
    for index, at in zip(video.indices, video.times, strict=True):
        assert at == pytest.approx(stamps[index] / 1000, abs=rounding)
    info = video.info
    assert (info.width, info.height, info.frames) == (*SIZE, 90)
    assert info.variable_rate == (stamps is VARIABLE)
    assert info.fps == pytest.approx(89 / stamps[-1] * 1000, rel=1e-3)
    assert info.duration == pytest.approx((stamps[-1] + stamps[-1] / 89) / 1000, abs=0.02)
    assert (info.rotation, info.has_audio) == (0, False)


def test_variable_rates_are_sampled_evenly_in_time(films: dict[str, Path]) -> None:
    path = film(films, "variable.mp4")
    by_time, by_count = read_frames(path, 8, "linspace"), read_frames(path, 8, "linspace", timeline="frames")
    assert by_count.indices == (0, 12, 25, 38, 50, 63, 76, 89)
    assert by_time.indices != by_count.indices
    fps = by_time.info.fps
    for wanted, index in zip((0, 12, 25, 38, 50, 63, 76, 89), by_time.indices, strict=True):
        shown = max(k for k, stamp in enumerate(VARIABLE) if stamp / 1000 <= wanted / fps + 1e-3)
        assert index == shown
    assert [number(frame) for frame in by_time.frames] == list(by_time.indices)


def test_both_timelines_agree_at_a_constant_rate(films: dict[str, Path]) -> None:
    path = film(films, "constant.mp4")
    assert read_frames(path, 8).indices == read_frames(path, 8, timeline="frames").indices


def test_clips_in_seconds(films: dict[str, Path]) -> None:
    video = read_frames(film(films, "constant.mp4"), 3, "linspace", (1.0, 2.0))
    assert video.indices == (25, 37, 50)
    assert video.times == pytest.approx((1.0, 1.48, 2.0))
    shown = read_frames(film(films, "variable.mkv"), 9, "linspace", (2.0, 4.0))
    assert 2.0 - 0.25 - 0.05 <= shown.times[0] <= shown.times[-1] <= 4.0 + 0.05
    with pytest.raises(MediaError, match=r"clip from 9.0 s to 12.0 s lies outside the video of 3.60 s"):
        read_frames(film(films, "constant.mp4"), 3, clip=(9.0, 12.0))


def test_short_videos_repeat_frames(tmp_path: Path) -> None:
    for length in (1, 3):
        path = write(tmp_path / f"{length}.mp4", CONSTANT[:length])
        video = read_frames(path, 8)
        assert len(video.frames) == 8
        assert set(video.indices) <= set(range(length))
        assert [number(frame) for frame in video.frames] == list(video.indices)
    assert read_frames(tmp_path / "1.mp4", 8, "fps").indices == (0,)


def test_bytes_are_read_like_files(films: dict[str, Path]) -> None:
    for name in ("constant.mp4", "variable.mkv"):
        path = film(films, name)
        assert probe(path.read_bytes()) == probe(str(path))
        expected, found = read_frames(path, 5), read_frames(path.read_bytes(), 5)
        assert [f.tobytes() for f in found.frames] == [f.tobytes() for f in expected.frames]


@pytest.mark.parametrize(
    ("matrix", "clockwise", "turn"),
    [
        ((1, 0, 0, 1), 0, None),
        ((0, 1, -1, 0), 90, Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), 180, Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), 270, Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), 0, Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), 0, Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), 90, Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), 270, Image.Transpose.TRANSVERSE),
    ],
)
def test_display_matrices_are_applied(
    films: dict[str, Path], matrix: tuple[int, int, int, int], clockwise: int, turn: Image.Transpose | None
) -> None:
    path = film(films, "constant.mp4")
    stored = read_frames(path, 2)
    video = read_frames(turned(path, matrix), 2)
    assert video.info.rotation == clockwise
    assert (video.info.width, video.info.height) == video.size == (SIZE[::-1] if clockwise % 180 else SIZE)
    for frame, original in zip(video.frames, stored.frames, strict=True):
        expected = original if turn is None else original.transpose(turn)
        assert np.array_equal(np.asarray(frame), np.asarray(expected))


def test_resized_frames_give_the_same_tiles(films: dict[str, Path]) -> None:
    policy, path = TilingPolicy(tile=28), film(films, "constant.mp4")
    whole, small = read_frames(path, 3), read_frames(path, 3, resize=(28, 28))
    assert small.size == (28, 28)
    assert (small.info.width, small.info.height) == SIZE
    tiles = [media_tiles(v.frames, plan_media(*v.size, policy, frames=3)) for v in (whole, small)]
    assert np.array_equal(tiles[0], tiles[1])


# ----------------------------------------------------------------------------------------------------------- bad input


def refused(source: object, message: str, **options: object) -> None:
    with pytest.raises(MediaError, match=message):
        probe(source, **options)  # type: ignore[arg-type]
    with pytest.raises(MediaError, match=message):
        read_frames(source, 2, **options)  # type: ignore[arg-type]


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", r"none\.mp4' does not exist; check the path")
    refused(tmp_path, "is a directory; expected one media file")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", r"is empty \(0 bytes\)")
    refused(b"", "0 bytes given as a video")
    refused(3, "object of type int given as a video; expected a path or the bytes of a video file")
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    refused(tmp_path / "text.mp4", "is not a video that can be read .* expected a whole, undamaged file such as MP4")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", r"a\.png' is a picture; expected a video: give it as an image")
    refused(write_audio(tmp_path / "a.m4a"), "holds only audio; expected a file with a video stream")


def test_files_that_point_elsewhere_are_not_followed(films: dict[str, Path], tmp_path: Path) -> None:
    target = film(films, "variable.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"
    for name, text in (
        ("a.m3u8", playlist),
        ("b.ffconcat", f"ffconcat version 1.0\nfile '{target}'\n"),
    ):
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, "is not a video that can be read")


def test_truncated_files(films: dict[str, Path], tmp_path: Path) -> None:
    for name in ("constant.mp4", "variable.mkv"):
        content = film(films, name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        refused(tmp_path / name, r"is not a video that can be read|ends after .* the file is truncated: fetch it again")
    first = {"movflags": "faststart"}
    with (
        av.open(str(film(films, "constant.mp4"))) as source,
        av.open(str(tmp_path / "index-first.mp4"), "w", options=first) as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = (tmp_path / "index-first.mp4").read_bytes()
    assert probe(content).frames == 90
    refused(content[: len(content) * 6 // 10], r"ends after \d\.\d+ s of 3\.60 s; the file is truncated")


def test_frames_that_cannot_be_decoded_are_reported(films: dict[str, Path], tmp_path: Path) -> None:
    path = film(films, "one-key.mp4")
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[30:]:
        content[position : position + size] = bytes(size)
    (tmp_path / "damaged.mp4").write_bytes(content)
    assert probe(tmp_path / "damaged.mp4").frames == 90
    with pytest.raises(MediaError, match=r"frame \d+ of 90 cannot be decoded \(. of 8 wanted frames are missing\)"):
        read_frames(tmp_path / "damaged.mp4", 8)
    early = read_frames(tmp_path / "damaged.mp4", 4, clip=(0, 0.8))  # the whole part is still good
    assert [number(frame) for frame in early.frames] == list(early.indices)


def test_oversized_frames(films: dict[str, Path]) -> None:
    refused(film(films, "constant.mp4"), "frames of 48 x 32 px; at most 1535 px are decoded", max_pixels=1535)
    assert probe(film(films, "constant.mp4"), max_pixels=1536).width == 48


def test_unknown_options(films: dict[str, Path]) -> None:
    path = film(films, "constant.mp4")
    with pytest.raises(ConfigError, match="unknown timeline 'frame'; expected one of time, frames"):
        read_frames(path, 2, timeline="frame")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown frame rule 'even'"):
        read_frames(path, 2, "even")  # type: ignore[arg-type]


def test_damaged_videos_give_frames_or_a_media_error(films: dict[str, Path]) -> None:
    names = [
        name for name in ("constant.mp4", "variable.mkv", "vp9.webm", "b-frames.avi", "variable.gif") if name in films
    ]
    rng = random.Random(11)
    for trial in range(60):
        content = bytearray(films[names[trial % len(names)]].read_bytes())
        for _ in range(rng.randint(1, 12)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        try:
            video = read_frames(bytes(content), 4, max_pixels=100_000)
        except MediaError:
            continue
        assert len(video.frames) == 4
        assert {frame.size for frame in video.frames} == {(video.info.width, video.info.height)}


def test_a_damaged_video_gives_the_same_frames_each_time(films: dict[str, Path]) -> None:
    rng, decoded = random.Random(4), 0
    for name in ("raw.h264", "b-frames.mp4", "mpeg2.ts", "vp9.webm"):
        if name not in films:
            continue
        content = bytearray(films[name].read_bytes())
        for _ in range(12):
            content[rng.randrange(len(content) // 4, len(content))] ^= 1 << rng.randrange(8)
        try:
            first, *others = ([frame.tobytes() for frame in read_frames(bytes(content), 60).frames] for _ in range(6))
        except MediaError:
            continue
        decoded += 1
        assert all(other == first for other in others), name
    assert decoded >= 2
