"""Which frames of a video a model sees: the sampling rules of the papers and of the evaluation kits.

A rule is a pure function of (frames in the file, frames per second, wanted frames, clip). ``internvl`` is the inference
code of InternVL3 (arXiv 2504.10479), ``random`` its training code, ``middle`` the reference extractor of Video-MME
(2405.21075, whose paper fixes no rule), ``vlmeval`` and ``linspace`` belong to two evaluation kits, ``fps`` is common.
On one video they differ by a few frames only, and so do the scores: a score must name its rule.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from vedere.config import nearest
from vedere.errors import ConfigError, MediaError

FrameRule = Literal["internvl", "middle", "vlmeval", "linspace", "fps", "random"]
Clip = tuple[float, float]


def clip_range(total: int, fps: float, clip: Clip | None) -> tuple[int, int]:
    """First and last frame (both included) of a clip in seconds: InternVL's rounding, limited to the file.

    Raises:
        MediaError: a clip that is empty, reversed or begins after the end.
    """
    if clip is None:
        return 0, total - 1
    start, end = clip
    if not (math.isfinite(start) and math.isfinite(end)) or start >= end:
        raise MediaError(f"clip from {start} s to {end} s; expected two numbers of seconds, start before end")
    first, last = max(0, round(start * fps)), min(round(end * fps), total - 1)
    if first > total - 1 or end <= 0:
        raise MediaError(
            f"clip from {start} s to {end} s lies outside the video of {total / fps:.2f} s; correct the clip"
        )
    return first, max(first, last)


def _internvl(first: int, last: int, count: int) -> list[int]:
    segment = (last - first) / count
    return [int(first + segment / 2 + round(segment * k)) for k in range(count)]


def _middle(first: int, last: int, count: int) -> list[int]:
    segment = (last - first) / count
    return [first + (round(segment * k) + round(segment * (k + 1))) // 2 for k in range(count)]


def _vlmeval(first: int, last: int, count: int) -> list[int]:
    step = (last - first + 1) / (count + 1)
    return [first + int(k * step) for k in range(1, count + 1)]


def _linspace(first: int, last: int, count: int) -> list[int]:
    return [int(index) for index in np.linspace(first, last, count, dtype=int)]


def _random(first: int, last: int, count: int, rng: random.Random) -> list[int]:
    total = last - first + 1
    distinct = min(count, total)
    borders = [int(border) for border in np.linspace(0, total, distinct + 1).astype(int)]
    # The published loop leaves out the last frame of each interval, so that an interval of one frame is empty.
    if all(high - 1 > low for low, high in itertools.pairwise(borders)):
        found = [rng.randrange(low, high - 1) for low, high in itertools.pairwise(borders)]
    else:
        found = sorted(rng.sample(range(total), distinct))
    return [first + index for index in found + found[-1:] * (count - distinct)]


def _fps(first: int, last: int, count: int, fps: float, rate: float) -> list[int]:
    total = last - first + 1
    wanted = max(1, math.floor(total / fps * rate + 1e-9))
    if wanted > count:
        return _linspace(first, last, count)
    return [min(last, first + int(k * fps / rate)) for k in range(wanted)]


_EVEN: dict[str, Callable[[int, int, int], list[int]]] = {
    "internvl": _internvl,
    "middle": _middle,
    "vlmeval": _vlmeval,
    "linspace": _linspace,
}


def frame_indices(
    rule: FrameRule,
    total: int,
    fps: float,
    count: int,
    clip: Clip | None = None,
    *,
    rate: float = 1.0,
    rng: random.Random | None = None,
) -> tuple[int, ...]:
    """Which frames a rule takes. With F frames in the range (the whole file, or the clip) and n = ``count``:

    * ``internvl``: int(s/2 + round(s k)), s = (F - 1) / n, k = 0..n-1.
    * ``middle``: the middle of n segments, (round(s k) + round(s (k + 1))) // 2, s = (F - 1) / n.
    * ``vlmeval``: int(s k), s = F / (n + 1), k = 1..n: neither end.
    * ``linspace``: both ends and evenly between, truncated.
    * ``fps``: ``rate`` frames a second, int(k fps / rate); when these are more than n, ``linspace`` of n.
    * ``random``: one random frame in each of n equal intervals, or a sorted random subset where an interval holds a
      single frame; short videos repeat the last. The published trainer draws n itself from 8..32.

    ``round`` is to even at halves, as in the originals. All but ``fps`` give exactly n indices.

    Args:
        rule: Name of the rule.
        total: Frames in the file.
        fps: Frames per second of the file.
        count: Wanted frames; for ``fps`` the most.
        clip: Limits in seconds, or None for the whole file.
        rate: Frames a second of ``fps``.
        rng: Random source of ``random``.

    Returns:
        Indices in 0..total-1, never falling.

    Raises:
        ConfigError: an unknown rule, ``random`` without ``rng``, or a count, rate or fps that is not positive.
        MediaError: a file without frames, or a clip outside of it.
    """
    if rule not in get_args(FrameRule):
        raise ConfigError(
            f"unknown frame rule '{rule}'{nearest(rule, get_args(FrameRule))} (rules: {', '.join(get_args(FrameRule))})"
        )
    if count < 1 or not rate > 0 or not 0 < fps < math.inf:
        raise ConfigError(f"count {count}, rate {rate}, fps {fps}: expected a count >= 1 and a positive rate and fps")
    if total < 1:
        raise MediaError(f"a video of {total} frames has nothing to sample; expected at least 1 frame")
    first, last = clip_range(total, fps, clip)
    if rule == "fps":
        return tuple(_fps(first, last, count, fps, rate))
    if rule == "random":
        if rng is None:
            raise ConfigError("the frame rule 'random' needs rng, a random.Random, so that runs can be repeated")
        return tuple(_random(first, last, count, rng))
    return tuple(_EVEN[rule](first, last, count))
