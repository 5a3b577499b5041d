"""XComposer-2.5's canvas of frames: measures worked out by hand, and laws for all sizes and counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.errors import ConfigError, MediaError
from vedere.plan import HDPolicy, plan_media
from vedere.vision.canvas import MOST_FRAMES, TILE, canvas_layout, canvas_tiles, fitted, frame_canvas, thinned

sides = st.integers(1, 4000)
counts = st.integers(1, MOST_FRAMES)


def plain(width: int, height: int, count: int) -> list[Image.Image]:
    """Frames of one colour each, all different, none white."""
    return [Image.new("RGB", (width, height), (3 * k, 200 - 3 * k, 90)) for k in range(count)]


def test_measures_worked_out_by_hand() -> None:
    # 16:9: 1120 x int(1120 / 1.777...) = 630; each takes 40 + 630 + 10 below the one before
    wide = canvas_layout(1920, 1080, 3)
    assert (wide.size, wide.below) == ((1120, 2040), True)
    assert wide.frames == ((0, 40, 1120, 670), (0, 720, 1120, 1350), (0, 1400, 1120, 2030))
    # 9:16: int(1120 * 0.5625) = 630 wide, each 640 further to the right
    tall = canvas_layout(1080, 1920, 3)
    assert (tall.size, tall.below) == ((1920, 1160), False)
    assert tall.frames == ((0, 40, 630, 1160), (640, 40, 1270, 1160), (1280, 40, 1910, 1160))
    assert canvas_layout(500, 500, 2).size == (2260, 1160)  # square ones stand beside each other
    assert canvas_layout(1920, 1080, 64).size == (1120, 43520)
    assert canvas_tiles(canvas_layout(1920, 1080, 64)) == 39  # 560 x 21760 of 38.9 tiles


def test_thinning_by_hand() -> None:
    assert thinned(3) == (0, 1, 2)
    assert thinned(10, 4) == (0, 2, 5, 7)
    assert thinned(128)[:3] == (0, 2, 4)
    assert thinned(96)[:5] == (0, 1, 3, 4, 6)


@given(st.integers(1, 2000), st.integers(1, 100))
def test_thinning_keeps_order_begins_at_the_first_and_is_even(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    assert kept[0] == 0
    assert kept[-1] < count
    steps = [later - earlier for earlier, later in itertools.pairwise(kept)]
    assert all(step >= 1 for step in steps)
    assert max(steps, default=1) - min(steps, default=1) <= 1
    assert thinned(len(kept), most) == tuple(range(len(kept)))  # thinning what was thinned changes nothing


@given(sides, sides, counts)
def test_frames_lie_inside_in_order_apart_with_a_strip_above(width: int, height: int, count: int) -> None:
    layout = canvas_layout(width, height, count)
    assert len(layout.frames) == count
    assert len({(right - left, bottom - top) for left, top, right, bottom in layout.frames}) == 1
    for left, top, right, bottom in layout.frames:
        assert 0 <= left < right <= layout.size[0]
        assert 40 <= top < bottom <= layout.size[1]
        assert max(right - left, bottom - top) == 1120
    for one, other in itertools.pairwise(layout.frames):
        gap = other[1] - 40 - one[3] if layout.below else other[0] - one[2]
        assert gap == 10
    first = layout.frames[0]
    across = layout.size[0] if layout.below else layout.size[1] - 40
    assert across == (first[2] if layout.below else first[3] - 40)  # nothing beside the frames
    assert 1 <= canvas_tiles(layout) <= 106


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_every_frame_is_on_the_canvas_and_the_rest_is_white_or_black(width: int, height: int, count: int) -> None:
    frames = plain(width, height, count)
    canvas, layout = frame_canvas(frames), canvas_layout(width, height, count)
    assert canvas.size == layout.size
    pixels = np.array(canvas)
    rest = np.ones(pixels.shape[:2], bool)
    for frame, (left, top, right, bottom) in zip(frames, layout.frames, strict=True):
        assert (pixels[top:bottom, left:right] == frame.getpixel((0, 0))).all()
        rest[top:bottom, left:right] = False
    outside = pixels[rest].astype(int)
    assert (outside.max(axis=1) - outside.min(axis=1) == 0).all()  # captions and lines have no colour
    lines = pixels[:, -1] if layout.below else pixels[-1]
    frames_there = rest[:, -1] if layout.below else rest[-1]
    assert int((lines[frames_there] == 0).all(axis=1).sum()) == 2 * (count - 1)


def test_captions_number_the_frames() -> None:
    frames = plain(64, 36, 12)
    canvas, layout = frame_canvas(frames), canvas_layout(64, 36, 12)
    strips = [np.array(canvas.crop((0, top - 40, 400, top))) for _, top, _, _ in layout.frames]
    assert len({strip.tobytes() for strip in strips}) == 12
    for strip in strips:
        assert 0.02 < (strip < 128).mean() < 0.5
        assert (strip[:1] == 255).all()  # nothing runs out of the strip
    again = frame_canvas(frames[:3])
    assert np.array_equal(np.array(again)[:2000], np.array(canvas)[:2000])  # later frames change nothing before them


def test_a_frame_is_resized_by_the_antialiased_bilinear_filter() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    frame = Image.fromarray(noise)
    canvas = frame_canvas([frame])
    expected = frame.resize((1120, 630), Image.Resampling.BILINEAR)
    assert canvas.crop((0, 40, 1120, 670)).tobytes() == expected.tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60), st.integers(4, 60), st.integers(1, 6))
def test_the_policy_of_xcomposer25_cuts_the_fitted_canvas_into_its_tiles(width: int, height: int, count: int) -> None:
    layout = canvas_layout(width, height, count)
    found = fitted(frame_canvas(plain(width, height, count)))
    tiles = canvas_tiles(layout)
    assert sorted(found.size) == [TILE, tiles * TILE]
    assert (found.width <= found.height) == (layout.size[0] < layout.size[1] or tiles == 1)
    assert fitted(found).tobytes() == found.tobytes()
    plan = plan_media(*found.size, HDPolicy.xcomposer25(limit=tiles))
    assert plan.resized == found.size
    assert sum(tile.role == "tile" for tile in plan.tiles) == tiles


def test_what_cannot_be_laid_out() -> None:
    with pytest.raises(ConfigError, match="65 frames of 32 x 18 px; expected 1 to 64 frames"):
        frame_canvas(plain(32, 18, 65))
    with pytest.raises(ConfigError, match="0 frames of 1 x 1 px; expected 1 to 64"):
        frame_canvas([])
    with pytest.raises(ConfigError, match="0 frames of which at most 64 are shown"):
        thinned(0)
    with pytest.raises(MediaError, match=r"several sizes \(32 x 18, 18 x 32 px\); expected one"):
        frame_canvas([*plain(32, 18, 2), *plain(18, 32, 1)])
