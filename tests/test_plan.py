"""Plans against the recorded size tables of the originals, and the laws that every plan obeys."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere import plan as plan_module
from vedere.errors import ConfigError, MediaError
from vedere.plan import (
    HDPolicy,
    MediaPlan,
    Policy,
    SpanKind,
    SquarePolicy,
    TilingPolicy,
    hd_range,
    hd_steps,
    plan_media,
    tiling_grid,
)

FOLDER = Path(__file__).parent / "golden" / "preprocessing"

sides = st.integers(1, 6000)
tilings = st.builds(
    lambda low, more, thumbnail, tile: TilingPolicy(
        tile=tile, min_tiles=low, max_tiles=low + more, thumbnail=thumbnail
    ),
    st.integers(1, 4),
    st.integers(0, 20),
    st.booleans(),
    st.sampled_from([28, 56, 448]),
)
hds = st.builds(
    HDPolicy,
    tile=st.sampled_from([28, 336, 560]),
    limit=st.integers(1, 60),
    mode=st.sampled_from(["maximum", "identity"]),
    scale=st.sampled_from([1.0, 1.5]),
    padding=st.sampled_from(["centre", "end"]),
)
squares = st.builds(SquarePolicy, tile=st.sampled_from([28, 448]), pad=st.booleans())


def rows_of(table: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / table).read_text())


# ------------------------------------------------------------------------------------------------------------- parity


def test_tiling_equals_the_recorded_table() -> None:
    checked = 0
    for row in rows_of("internvl_tiling.json"):
        for limit, expected in row["results"].items():
            policy = TilingPolicy(tile=row["image_size"], max_tiles=int(limit))
            bare = TilingPolicy(tile=row["image_size"], max_tiles=int(limit), thumbnail=False)
            plan = plan_media(row["width"], row["height"], policy)
            assert list(plan.grid) == expected["grid"], row
            assert len(plan.tiles) == expected["tiles_with_thumbnail"], row
            assert len(plan_media(row["width"], row["height"], bare).tiles) == expected["tiles"], row
            checked += 1
    assert checked == 1000


@pytest.mark.parametrize("column", ["hd336", "ixc25_560"])
def test_hd_equals_the_recorded_table(column: str) -> None:
    checked = 0
    for row in rows_of("hd_transform.json"):
        for limit, expected in row[column].items():
            if column == "hd336":
                policy = HDPolicy(limit=int(limit))
            else:
                policy = HDPolicy.xcomposer25(int(limit))
            plan = plan_media(row["width"], row["height"], policy)
            left, top, right, bottom = plan.padding
            assert list(plan.resized) == expected["resized"], row
            assert list(plan.padding) == expected["pad_left_top_right_bottom"], row
            assert list(plan.grid) == expected["grid_wh"], row
            padded = [plan.resized[0] + left + right, plan.resized[1] + top + bottom]
            assert padded == expected["padded"], row
            checked += 1
    assert checked == 5 * len(rows_of("hd_transform.json")) >= 500


def test_published_grids() -> None:
    twelve_and_six = {
        (448, 448): ((1, 1), (1, 1)),
        (500, 500): ((1, 1), (1, 1)),
        (700, 700): ((2, 2), (2, 2)),
        (1000, 1000): ((3, 3), (2, 2)),
        (800, 400): ((2, 1), (2, 1)),
        (1920, 1080): ((4, 2), (2, 1)),
        (600, 1800): ((1, 3), (1, 3)),
        (4000, 500): ((8, 1), (6, 1)),
    }
    for (width, height), grids in twelve_and_six.items():
        found = tuple(tiling_grid(width, height, TilingPolicy(max_tiles=limit)) for limit in (12, 6))
        assert found == grids, (width, height)


def test_published_token_counts() -> None:
    assert plan_media(448, 448, TilingPolicy()).tokens == 256
    assert plan_media(1920, 1080, TilingPolicy()).tokens == 9 * 256  # 4 x 2 and the thumbnail
    assert plan_media(1920, 1080, TilingPolicy(max_tiles=1), frames=16).tokens == 16 * 256
    assert plan_media(100, 100, HDPolicy(limit=55)).tokens == (49 + 1) * 144 + 1 + (7 + 1) * 12  # 7297
    assert plan_media(3840, 1600, HDPolicy(limit=55)).resized == (3696, 1540)
    assert plan_media(3840, 1600, HDPolicy(limit=55)).padding == (0, 70, 0, 70)
    assert plan_media(1120, 560, HDPolicy.xcomposer25()).tokens == (2 + 1) * 400 + 1 + (1 + 1) * 20


# --------------------------------------------------------------------------------------------------------------- laws


def check(plan: MediaPlan) -> None:
    """What holds for every plan."""
    assert plan.tokens == sum(length for _, length in plan.spans)
    assert all(length > 0 for _, length in plan.spans)
    side = plan.tile_size
    per_tile = (side // (plan.policy.patch * plan.policy.downsample)) ** 2
    visual = sum(length for kind, length in plan.spans if kind is SpanKind.VISUAL)
    assert visual == len(plan.tiles) * per_tile
    assert sum(plan.frame_spans, ()) == plan.spans
    assert len(plan.frame_spans) == plan.frames
    cut = [tile for tile in plan.tiles if tile.role == "tile"]
    if not plan.is_video:
        columns, rows = plan.grid
        assert [tile.box for tile in cut] == [
            (c * side, r * side, (c + 1) * side, (r + 1) * side) for r in range(rows) for c in range(columns)
        ]
    for tile in plan.tiles:
        if tile.role in ("thumbnail", "global"):
            assert tile.box == (0, 0, plan.grid[0] * side, plan.grid[1] * side)
    hash(plan)


@settings(max_examples=150, deadline=None)
@given(sides, sides, tilings)
def test_tiling_laws(width: int, height: int, policy: TilingPolicy) -> None:
    plan = plan_media(width, height, policy)
    check(plan)
    columns, rows = plan.grid
    assert policy.min_tiles <= columns * rows <= policy.max_tiles
    assert plan.resized == (columns * policy.tile, rows * policy.tile)
    assert plan.tokens == len(plan.tiles) * policy.tokens_per_tile
    assert len(plan.tiles) == columns * rows + (policy.thumbnail and columns * rows > 1)
    assert (plan.tiles[-1].role == "thumbnail") == (policy.thumbnail and columns * rows > 1)
    ratio = abs(width / height - columns / rows)
    for n in range(policy.min_tiles, policy.max_tiles + 1):
        for i in range(1, n + 1):
            if n % i == 0:
                assert ratio <= abs(width / height - i / (n // i))


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.integers(1, 24))
def test_more_tiles_never_fit_the_aspect_ratio_worse(width: int, height: int, limit: int) -> None:
    few, many = (tiling_grid(width, height, TilingPolicy(max_tiles=n)) for n in (limit, limit + 1))
    assert abs(width / height - many[0] / many[1]) <= abs(width / height - few[0] / few[1])


@settings(max_examples=150, deadline=None)
@given(sides, sides, hds)
def test_hd_laws(width: int, height: int, policy: HDPolicy) -> None:
    plan = plan_media(width, height, policy)
    check(plan)
    columns, rows = plan.grid
    assert columns * rows <= policy.limit
    assert plan.tiles[0].role == "global"
    assert len(plan.tiles) == 1 + columns * rows
    m = policy.tile // (policy.patch * policy.downsample)
    assert plan.tokens == (columns * rows + 1) * m * m + 1 + (rows + 1) * m
    left, top, right, bottom = plan.padding
    assert min(plan.padding) >= 0
    assert plan.resized[0] + left + right == columns * policy.tile
    assert plan.resized[1] + top + bottom == rows * policy.tile
    missing = (top, bottom) if not plan.transposed else (left, right)
    assert sum(plan.padding) == sum(missing) < policy.tile
    assert missing[0] == (0 if policy.padding == "end" else sum(missing) // 2)
    assert plan.transposed == (width < height)
    if policy.mode == "maximum" and width >= height:
        more = hd_steps(width, height, policy) + 1
        assert more * math.ceil(more / (width / height)) > policy.limit


@settings(max_examples=100, deadline=None)
@given(sides, sides, hds)
def test_hd_plans_of_transposed_pictures_are_transposed(width: int, height: int, policy: HDPolicy) -> None:
    if width == height:
        return
    plan, other = plan_media(width, height, policy), plan_media(height, width, policy)
    assert plan.grid == other.grid[::-1]
    assert plan.resized == other.resized[::-1]
    assert plan.padding == tuple(other.padding[k] for k in (1, 0, 3, 2))


@settings(max_examples=150, deadline=None)
@given(sides, sides, hds, st.randoms(use_true_random=False))
def test_training_draws_sizes_between_the_pictures_own_and_the_limit(
    width: int, height: int, policy: HDPolicy, rng: random.Random
) -> None:
    """4KHD's mixed resolutions: as many sub-images as the picture has of its own, at least; never over the limit."""
    least, most = hd_range(width, height, policy)
    long = max(width, height)
    whole = plan_media(width, height, replace(policy, mode="maximum"))
    assert most == max(whole.grid) == hd_steps(long, min(width, height), replace(policy, mode="maximum"))
    assert 1 <= least <= most
    assert least == most or long <= least * policy.tile < long + policy.tile
    drawn = plan_media(width, height, replace(policy, steps=rng.randint(least, most)))
    assert math.prod(drawn.grid) <= policy.limit
    assert drawn.tokens <= whole.tokens
    with pytest.raises(ConfigError, match=rf"{most + 1} sub-images along .* allows {most}: lower steps or raise limit"):
        plan_media(width, height, replace(policy, steps=most + 1))


def test_hd_spans_are_rows_with_an_end_and_one_separator() -> None:
    plan = plan_media(600, 300, HDPolicy(tile=56, limit=2))
    assert plan.grid == (2, 1)
    row, wide = ((SpanKind.VISUAL, 2), (SpanKind.ROW_END, 1)), ((SpanKind.VISUAL, 4), (SpanKind.ROW_END, 1))
    assert plan.spans == row * 2 + ((SpanKind.SEPARATOR, 1),) + wide * 2


@settings(max_examples=60, deadline=None)
@given(sides, sides, squares)
def test_square_laws(width: int, height: int, policy: SquarePolicy) -> None:
    plan = plan_media(width, height, policy)
    check(plan)
    assert len(plan.tiles) == 1
    left, top, right, bottom = plan.padding
    if policy.pad:
        assert width + left + right == height + top + bottom == max(width, height)
        assert 0 <= right - left <= 1
        assert 0 <= bottom - top <= 1
    else:
        assert plan.padding == (0, 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(sides, sides, tilings, st.integers(1, 300))
def test_video_laws(width: int, height: int, policy: TilingPolicy, frames: int) -> None:
    plan = plan_media(width, height, policy, frames)
    check(plan)
    assert plan.is_video
    assert plan.frames == len(plan.tiles) == frames
    assert [tile.frame for tile in plan.tiles] == list(range(frames))
    assert {tile.role for tile in plan.tiles} == {"frame"}
    assert plan.frame_spans == (((SpanKind.VISUAL, policy.tokens_per_tile),),) * frames
    assert not plan_media(width, height, policy).is_video


def test_a_video_of_one_frame_is_no_picture() -> None:
    assert plan_media(40, 30, TilingPolicy(), frames=1).is_video
    assert not plan_media(40, 30, TilingPolicy()).is_video


@settings(max_examples=60, deadline=None)
@given(sides, sides, tilings | hds | squares)
def test_equal_questions_give_the_same_object(width: int, height: int, policy: Policy) -> None:
    plan = plan_media(width, height, policy)
    copy = type(policy)(**{name: getattr(policy, name) for name in policy.__dataclass_fields__})
    assert plan_media(width, height, copy) is plan
    assert len({plan, plan_media(width, height, copy)}) == 1
    assert plan_media(width + 1, height, policy) != plan


@settings(max_examples=60, deadline=None)
@given(tilings, st.integers(0, 100))
def test_images_of_one_sample_share_the_limit(policy: TilingPolicy, count: int) -> None:
    shared = policy.for_images(count)
    assert shared.max_tiles == max(1, policy.max_tiles // max(1, count))
    assert shared.min_tiles <= shared.max_tiles
    assert count == 0 or shared.max_tiles * count <= max(policy.max_tiles, count)
    assert policy.for_images(1) == policy


@settings(max_examples=30, deadline=None)
@given(hds, st.integers(1, 10**7))
def test_extreme_strips_keep_a_pixel(policy: HDPolicy, length: int) -> None:
    for plan in (plan_media(length, 1, policy), plan_media(1, length, policy)):
        check(plan)
        assert min(plan.resized) >= 1


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_sizes_without_pixels_are_refused(width: int, height: int) -> None:
    with pytest.raises(MediaError, match=f"a picture of {width} x {height} px has no pixels; expected both sides >= 1"):
        plan_media(width, height, TilingPolicy())


def test_videos_without_frames_are_refused() -> None:
    with pytest.raises(MediaError, match="a video of 0 frames cannot be planned; expected at least 1 sampled frame"):
        plan_media(40, 30, TilingPolicy(), frames=0)
    for policy in (HDPolicy(), SquarePolicy()):
        with pytest.raises(ConfigError, match=f"TilingPolicy, one tile a frame; given {type(policy).__name__}"):
            plan_media(40, 30, policy, frames=4)


def test_policies_that_cannot_be_are_refused() -> None:
    message = "a tile of {} px cannot be cut into tokens of 14 px patches x 2; choose a multiple of 28"
    for kind in (TilingPolicy, HDPolicy, SquarePolicy):
        with pytest.raises(ConfigError, match=message.format(434)):  # 31 patches
            kind(tile=434)
        with pytest.raises(ConfigError, match=message.format(14)):
            kind(tile=14)
        with pytest.raises(ConfigError, match="cannot be cut into tokens"):
            kind(tile=0)
    with pytest.raises(ConfigError, match=message.format(450)):
        HDPolicy(tile=450)
    # InternVL's convolution leaves out what is beyond the last whole patch.
    assert TilingPolicy(tile=450).tokens_per_tile == SquarePolicy(tile=450).tokens_per_tile == 256
    for low, high in ((0, 5), (3, 2)):
        with pytest.raises(ConfigError, match=f"min_tiles {low} and max_tiles {high}: expected 1 <= min <= max"):
            TilingPolicy(min_tiles=low, max_tiles=high)
    with pytest.raises(ConfigError, match=r"limit 0, scale 1.0: expected a limit >= 1 and a scale > 0"):
        HDPolicy(limit=0)
    with pytest.raises(ConfigError, match=r"limit 25, scale 0: expected a limit >= 1"):
        HDPolicy(scale=0)


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 6), (1, 12), (3, 40), (7, 7), (10, 64)])
def test_candidates_stand_in_the_order_of_the_originals_loops(least: int, most: int) -> None:
    met = set()
    for n in range(least, most + 1):
        for i in range(1, n + 1):
            for j in range(1, n + 1):
                if least <= i * j <= most:
                    met.add((i, j))
    assert plan_module._grids(least, most) == tuple(sorted(met, key=lambda grid: grid[0] * grid[1]))


def test_more_tiles_than_anyone_has_memory_for_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_tiles 1000000: expected 1 <= min <= max <= 1024"):
        TilingPolicy(max_tiles=1_000_000)


def test_several_pictures_of_xcomposer25_have_six_sub_images_each():
    policy = HDPolicy.xcomposer25()
    assert [policy.for_images(count).limit for count in (0, 1, 2, 9)] == [24, 24, 6, 6]
    assert HDPolicy.xcomposer25(4).for_images(2).limit == 4
    assert HDPolicy(limit=55).for_images(2) == HDPolicy(limit=55)
    with pytest.raises(ConfigError, match="together -1: expected a limit for several pictures"):
        HDPolicy(together=-1)
