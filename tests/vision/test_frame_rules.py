"""Frame rules: values worked out from their definitions, and laws for all of them."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError, MediaError
from vedere.vision import frame_indices

EVEN = ("internvl", "middle", "vlmeval", "linspace")


def test_values_worked_out_by_hand() -> None:
    # internvl: s = 99/8 = 12.375, int(6.1875 + round(12.375 k)) with 0, 12, 25, 37, 50 (49.5 to even), 62, 74, 87
    assert frame_indices("internvl", 100, 25.0, 8) == (6, 18, 31, 43, 56, 68, 80, 93)
    # middle: borders 0, 12, 25, 37, 50 (49.5 to even), 62, 74, 87, 99
    assert frame_indices("middle", 100, 25.0, 8) == (6, 18, 31, 43, 56, 68, 80, 93)
    assert frame_indices("middle", 10, 25.0, 4) == (1, 3, 5, 8)  # borders 0, 2, 4 (4.5 to even), 7, 9
    assert frame_indices("vlmeval", 100, 25.0, 8) == (11, 22, 33, 44, 55, 66, 77, 88)
    assert frame_indices("linspace", 100, 25.0, 8) == (0, 14, 28, 42, 56, 70, 84, 99)
    assert frame_indices("fps", 100, 25.0, 8) == (0, 25, 50, 75)  # one a second
    assert frame_indices("fps", 100, 25.0, 8, rate=2) == (0, 12, 25, 37, 50, 62, 75, 87)
    assert frame_indices("fps", 100, 25.0, 8, rate=0.5) == (0, 50)
    assert frame_indices("fps", 100, 25.0, 3) == frame_indices("linspace", 100, 25.0, 3)  # over the cap


def test_rules_differ() -> None:
    found = {rule: frame_indices(rule, 30, 10.0, 7) for rule in EVEN}  # type: ignore[arg-type]
    assert found["internvl"] == (2, 6, 10, 14, 19, 23, 27)
    assert found["middle"] == (2, 6, 10, 14, 19, 23, 27)
    assert found["vlmeval"] == (3, 7, 11, 15, 18, 22, 26)
    assert found["linspace"] == (0, 4, 9, 14, 19, 24, 29)
    assert frame_indices("internvl", 12, 1.0, 8) != frame_indices("middle", 12, 1.0, 8)


def test_clips_limit_the_range() -> None:
    # seconds 2 to 4 at 10 fps: frames 20 to 40, s = 20/4 = 5, int(20 + 2.5 + round(5 k))
    assert frame_indices("internvl", 100, 10.0, 4, (2, 4)) == (22, 27, 32, 37)
    assert frame_indices("linspace", 100, 10.0, 5, (2, 4)) == (20, 25, 30, 35, 40)
    assert frame_indices("linspace", 100, 10.0, 2, (-3, 500)) == (0, 99)
    assert frame_indices("linspace", 100, 10.0, 3, (9.9, 30)) == (99, 99, 99)


def test_one_frame() -> None:
    assert frame_indices("internvl", 101, 25.0, 1) == (50,)
    assert frame_indices("middle", 101, 25.0, 1) == (50,)
    assert frame_indices("vlmeval", 101, 25.0, 1) == (50,)
    assert frame_indices("linspace", 101, 25.0, 1) == (0,)
    assert frame_indices("fps", 1, 25.0, 8) == (0,)  # shorter than a second


clips = st.none() | st.tuples(st.floats(-5, 30), st.floats(0.01, 60)).map(lambda c: (c[0], max(c[0], 0) + c[1]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(EVEN), st.integers(1, 5000), st.floats(0.5, 120), st.integers(1, 300), clips)
def test_even_rules_give_exactly_the_wanted_number_in_order(
    rule: str, total: int, fps: float, count: int, clip: tuple[float, float] | None
) -> None:
    try:
        found = frame_indices(rule, total, fps, count, clip)  # type: ignore[arg-type]
    except MediaError:
        assert clip is not None
        assert round(clip[0] * fps) >= total
        return
    assert len(found) == count
    assert list(found) == sorted(found)
    assert found[0] >= 0
    assert found[-1] <= total - 1
    if clip is not None:
        assert found[0] >= round(max(0.0, clip[0]) * fps)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(EVEN), st.integers(1, 200), st.integers(0, 200), st.integers(1, 40))
def test_a_clip_is_sampled_like_a_file_of_its_length(rule: str, length: int, before: int, count: int) -> None:
    clip = (float(before), float(before + length - 1)) if length > 1 else (float(before), before + 0.25)
    inside = frame_indices(rule, before + length + 7, 1.0, count, clip)  # type: ignore[arg-type]
    assert inside == tuple(before + k for k in frame_indices(rule, length, 1.0, count))  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.floats(1, 60), st.integers(1, 100), st.floats(0.1, 5))
def test_the_fps_rule_keeps_its_rate_or_its_cap(total: int, fps: float, cap: int, rate: float) -> None:
    found = frame_indices("fps", total, fps, cap, rate=rate)
    assert 1 <= len(found) <= cap
    assert list(found) == sorted(found)
    assert found[-1] < total
    wanted = Fraction(total) / Fraction(fps) * Fraction(rate)
    if wanted > cap + 1:
        assert len(found) == cap
    elif len(found) < cap:
        assert abs(len(found) - max(1, wanted)) < 1 + 1e-6
        for k, index in enumerate(found):
            assert 0 <= k / rate - index / fps < 1 / fps + 1e-6 or index == total - 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 1000))
def test_random_frames_are_drawn_one_an_interval(total: int, count: int, seed: int) -> None:
    found = frame_indices("random", total, 25.0, count, rng=random.Random(seed))
    assert found == frame_indices("random", total, 25.0, count, rng=random.Random(seed))
    assert len(found) == count
    assert list(found) == sorted(found)
    distinct = found[: min(count, total)]
    assert len(set(distinct)) == len(distinct)
    assert set(found[len(distinct) :]) <= {distinct[-1]}
    borders = np.linspace(0, total, count + 1).astype(int)  # the published rule, whose rounding is part of it
    if min(np.diff(borders)) > 1:
        assert all(low <= index < high for index, (low, high) in zip(found, itertools.pairwise(borders), strict=True))


def test_random_frames_vary_and_never_end_an_interval() -> None:
    rng = random.Random(0)
    drawn = {frame_indices("random", 80, 25.0, 8, rng=rng)[3] for _ in range(500)}
    assert drawn == set(range(30, 39))  # of the interval 30..39 the published loop leaves out the last
    drawn = {frame_indices("random", 5, 25.0, 4, rng=rng) for _ in range(300)}
    assert len(drawn) == 5  # all subsets of 4 out of 5


def test_mistakes_are_explained() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown frame rule 'linspce'; did you mean 'linspace'\? \(rules: internvl,"
    ):
        frame_indices("linspce", 10, 25.0, 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'random' needs rng, a random.Random"):
        frame_indices("random", 10, 25.0, 4)
    for count, fps, rate in ((0, 25.0, 1), (4, 0.0, 1), (4, float("nan"), 1), (4, 25.0, 0)):
        with pytest.raises(ConfigError, match="expected a count >= 1 and a positive rate and fps"):
            frame_indices("fps", 10, fps, count, rate=rate)
    with pytest.raises(MediaError, match="a video of 0 frames has nothing to sample"):
        frame_indices("middle", 0, 25.0, 4)
    for clip in ((5.0, 5.0), (6.0, 5.0), (float("nan"), 3.0), (0.0, float("inf"))):
        with pytest.raises(MediaError, match="expected two numbers of seconds, start before end"):
            frame_indices("middle", 100, 10.0, 4, clip)
    for clip in ((12.0, 15.0), (-3.0, -1.0)):
        with pytest.raises(MediaError, match=r"lies outside the video of 10.00 s; correct the clip"):
            frame_indices("middle", 100, 10.0, 4, clip)
