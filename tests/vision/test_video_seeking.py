"""What reading frames by index decodes: no more than it needs, never more than the whole file, whatever a seek does."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_films import CONSTANT, all_frames, film, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vedere.vision import read_frames
from vedere.vision import video as video_module
from vedere.vision.container import open_container
from vedere.vision.video import frames_at


@pytest.mark.parametrize("size", [(48, 32), (33, 17)])
@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p16le", "yuv422p10le", "gray", "gbrp10le", "bgr0", "yuva420p"])
def test_every_pixel_layout_gives_the_pictures_of_the_decoder(
    tmp_path: Path, layout: str, size: tuple[int, int]
) -> None:
    path, noise = tmp_path / "film.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, layout
        for _ in range(5):
            picture = noise.integers(0, 256, (size[1], size[0], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=layout)))
        container.mux(stream.encode(None))
    found = frames_at(path, range(5)).frames
    assert {image.size for image in found} == {size}
    assert [image.tobytes() for image in found] == all_frames(path)


def test_seeking_decodes_a_fraction_of_the_file(films: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, original = [], video_module._until_damage

    def counting(frames: object) -> object:
        for frame in original(frames):  # type: ignore[arg-type]
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_module, "_until_damage", counting)
    for name in ("constant.mp4", "b-frames.mp4", "variable.mkv", "intra.mp4"):
        decoded.clear()
        read_frames(film(films, name), 3, timeline="frames")  # frames 14, 44, 74: key frames at 12, 36, 72
        assert 3 <= len(decoded) <= 40
    decoded.clear()
    read_frames(film(films, "one-key.mp4"), 3)
    assert 30 <= len(decoded) <= 60  # one run, not three; frames that no other one is made from are left out


class Counting:
    """A container that counts the packets its decoder is given."""

    def __init__(self, container: Any, counts: list[int]) -> None:
        self.container, self.counts = container, counts
        counts.append(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self.container.demux(stream):
            self.counts[-1] += packet.size > 0
            yield packet

    def decode(self, stream: Any) -> Iterator[Any]:
        for packet in self.demux(stream):
            yield from packet.decode()


@pytest.fixture(scope="module")
def dense_films(films: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Films with groups of pictures of several lengths, some longer than what is worth a seek."""
    names = (
        "constant.mp4",
        "pyramid.mp4",
        "intra.mp4",
        "variable.mkv",
        "variable.ts",
        "mpeg2.ts",
        "mpeg4.avi",
        "raw.h264",
        "interlaced.ts",
    )
    found = {name: films[name] for name in names if name in films}
    folder = tmp_path_factory.mktemp("dense")
    for group in (17, 20, 30):
        params = f"bframes=4:b-adapt=0:keyint={group}:min-keyint={group}:scenecut=0"
        found[f"groups of {group}"] = write(folder / f"{group}.mp4", CONSTANT, **{"x264-params": params})
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 100),
    st.sets(st.integers(0, 89), min_size=1)
    | st.tuples(st.integers(1, 40), st.integers(0, 39)).map(lambda p: set(range(p[1], 90, p[0])) or {0}),
)
@example(10, set(range(19, 90, 20)))  # the last frame of each group: a seek saves nothing
@example(9, set(range(16, 90, 17)))
@example(5, set(range(90)))  # transport streams, whose seeks look for decoding timestamps
@example(8, {5, 50})
@example(0, set(range(90)))
@example(0, set(range(0, 90, 2)))
def test_no_set_of_frames_costs_more_than_decoding_everything(
    dense_films: dict[str, Path], which: int, wanted: set[int]
) -> None:
    name = list(dense_films)[which % len(dense_films)]
    path, indices, counts = dense_films[name], sorted(wanted), list[int]()

    @contextlib.contextmanager
    def counted(source: Any) -> Iterator[Any]:
        with open_container(source) as container:
            yield Counting(container, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_module, "open_container", counted)
        found = frames_at(path, indices)
    listed, *decoded = counts
    assert listed == 90
    assert sum(decoded) <= 90 + 2, (name, indices)
    if name not in _FULL:
        _FULL[name] = all_frames(path)
    assert [frame.tobytes() for frame in found.frames] == [_FULL[name][index] for index in indices]


_FULL: dict[str, list[bytes]] = {}


class Early(Counting):
    """A container whose every seek lands at the beginning."""

    def seek(self, place: int, **options: Any) -> None:
        self.container.seek(0, **options)


def test_seeks_that_land_too_early_are_given_up(films: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, counts = film(films, "intra.mp4"), list[int]()
    wanted = [0, 18, 36, 54, 72]
    expected = [frame.tobytes() for frame in frames_at(path, wanted).frames]

    @contextlib.contextmanager
    def early(source: Any) -> Iterator[Any]:
        with open_container(source) as container:
            yield Early(container, counts)

    monkeypatch.setattr(video_module, "open_container", early)
    assert [frame.tobytes() for frame in frames_at(path, wanted).frames] == expected
    assert sum(counts[1:]) <= 1 + 19 + 73 + 2  # two seeks show it, the rest is decoded in one go; five would be 185


@pytest.mark.parametrize("name", ["constant.mp4", "variable.mkv", "raw.h264"])
def test_a_seek_that_lands_anywhere_changes_nothing(
    films: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, path = read_frames(film(films, name), 6), film(films, name)
    index = video_module._index
    rng = random.Random(0)

    def misled(*arguments: object) -> object:
        found = index(*arguments)  # type: ignore[arg-type]
        wrong = [(pts, rng.choice(found.pts)) for pts in found.pts[::3]] if found.pts else []
        return video_module._Index(found.pts, found.seconds, wrong, found.fps, found.variable)

    monkeypatch.setattr(video_module, "_index", misled)
    for _ in range(5):
        again = read_frames(path, 6)
        assert again.indices == expected.indices
        assert [f.tobytes() for f in again.frames] == [f.tobytes() for f in expected.frames]
