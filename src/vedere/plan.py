"""How many tokens a picture or video becomes, decided once, from its size alone.

Tokenizer, packer, model, server and evaluator all read a `MediaPlan`; nobody recomputes it, so an image-token mismatch
can only be a bug in one file. Pure integer arithmetic: no torch, no pixels, cached, hashable.

Three policies:

* `TilingPolicy`: InternVL's dynamic tiles plus thumbnail (InternVL 1.5, arXiv 2404.16821, sec. 3.2; used unchanged by
  InternVL3, 2504.10479, and by Mono-InternVL, 2410.08202). Choose the grid with the nearest aspect ratio.
* `HDPolicy`: XComposer2-4KHD's automatic patch configuration (2404.06512, sec. 3.2) and the "scaled identity" variant of
  XComposer-2.5 (2407.03320). Fill the largest landscape grid that a limit allows, pad the rest with white.
* `SquarePolicy`: one square tile, either squashed (CLIP) or padded to a square first (`pad2square`).

A grid is always ``(columns, rows)``, a size ``(width, height)``, a box ``(left, top, right, bottom)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

from vedere.errors import ConfigError, MediaError, PromptError

MOST_TILES = 1024  # of one picture; the originals go up to 128
Role = Literal["tile", "thumbnail", "global", "frame"]


class SpanKind(IntEnum):
    """What a run of positions holds. The value is the span type that routers and positions read."""

    TEXT = 0
    VISUAL = 1
    ROW_END = 2
    SEPARATOR = 3


def _tokens_per_side(tile: int, patch: int, downsample: int, whole: bool = False) -> int:
    """Tokens a side; ``whole``: the patches fill the tile, else the convolution leaves out pixels beyond the last."""
    cell = patch * downsample
    bad = tile <= 0 or patch <= 0 or downsample <= 0
    if bad or tile < cell or tile // patch % downsample or (whole and tile % patch):
        raise ConfigError(
            f"a tile of {tile} px cannot be cut into tokens of {patch} px patches x {downsample}; "
            f"choose a multiple of {cell}"
        )
    return tile // cell


@dataclass(frozen=True, kw_only=True)
class TilingPolicy:
    """InternVL's dynamic tiling. ``max_tiles`` excludes the thumbnail: 12 means up to 13 tiles.

    Attributes:
        tile: Side of a tile in pixels.
        patch: Side of a ViT patch in pixels.
        downsample: Pixel-unshuffle factor per side; 2 is the published ``downsample_ratio`` 0.5.
        min_tiles: Fewest tiles of a grid.
        max_tiles: Most tiles of a grid.
        thumbnail: Append the whole picture as one more tile when the grid has more than one.
    """

    tile: int = 448
    patch: int = 14
    downsample: int = 2
    min_tiles: int = 1
    max_tiles: int = 12
    thumbnail: bool = True
    kind: Literal["tiling"] = "tiling"

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
            ConfigError: sizes that do not divide, or an empty range of tiles.
        """
        _tokens_per_side(self.tile, self.patch, self.downsample)
        if not 1 <= self.min_tiles <= self.max_tiles <= MOST_TILES:
            raise ConfigError(
                f"min_tiles {self.min_tiles} and max_tiles {self.max_tiles}: expected 1 <= min <= max <= {MOST_TILES}"
            )

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile: 256 at 448 px."""
        return _tokens_per_side(self.tile, self.patch, self.downsample) ** 2

    def for_images(self, count: int) -> TilingPolicy:
        """The policy when a sample holds ``count`` images: the tile limit is shared, at least one each."""
        limit = max(1, self.max_tiles // max(1, count))
        return replace(self, min_tiles=min(self.min_tiles, limit), max_tiles=limit)


@dataclass(frozen=True, kw_only=True)
class HDPolicy:
    """XComposer2-4KHD's automatic patch configuration.

    Attributes:
        tile: Side of a sub-image: 336 for 4KHD, 560 for XComposer-2.5.
        patch: Side of a ViT patch.
        downsample: Merge factor per side.
        limit: The N of "HD-N": most sub-images of the grid, the global view not counted.
        mode: ``maximum`` always fills the limit, also upwards (4KHD); ``identity`` stops at the picture's own width
            times ``scale`` (XComposer-2.5).
        scale: Factor of ``identity``: 1.0 in released inference code, 1.5 in its fine-tuning.
        padding: Where white goes: ``centre`` (4KHD; the smaller half first) or ``end`` (2.5).
        steps: Sub-images along the long side that training drew for a picture (`hd_range`); 0: as many as ``mode`` says.
        together: The limit of each picture where a prompt has several (XComposer-2.5: 6); 0: the same.
    """

    tile: int = 336
    patch: int = 14
    downsample: int = 2
    limit: int = 25
    mode: Literal["maximum", "identity"] = "maximum"
    scale: float = 1.0
    padding: Literal["centre", "end"] = "centre"
    steps: int = 0
    together: int = 0
    kind: Literal["hd"] = "hd"

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
            ConfigError: sizes that do not divide, a limit below 1 or beyond `MOST_TILES`, or numbers below 0.
        """
        _tokens_per_side(self.tile, self.patch, self.downsample, whole=True)
        if self.limit < 1 or self.scale <= 0:
            raise ConfigError(f"limit {self.limit}, scale {self.scale}: expected a limit >= 1 and a scale > 0")
        if self.limit > MOST_TILES or self.steps < 0:
            raise ConfigError(
                f"limit {self.limit}, steps {self.steps}: expected a limit <= {MOST_TILES} (the papers go to 65) and steps >= 0"
            )
        if self.together < 0:
            raise ConfigError(f"together {self.together}: expected a limit for several pictures, or 0 for the same one")

    @classmethod
    def xcomposer25(cls, limit: int = 24) -> HDPolicy:
        """The variant of XComposer-2.5: 560 px, scaled identity, padding at the end, at most 6 where there are several."""
        return cls(tile=560, limit=limit, mode="identity", padding="end", together=6)

    def for_images(self, count: int) -> HDPolicy:
        """The policy when a prompt holds ``count`` images."""
        return replace(self, limit=min(self.limit, self.together)) if count > 1 and self.together else self


@dataclass(frozen=True, kw_only=True)
class SquarePolicy:
    """One square tile.

    Attributes:
        tile: Side in pixels.
        patch: Side of a ViT patch.
        downsample: Merge factor per side.
        pad: Pad to a square with the mean colour first (``pad2square``) instead of squashing.
        sampled: Tokens of a picture where a sampler decides them (XComposer: 64 and two flags); 0: the patches do.
    """

    tile: int = 448
    patch: int = 14
    downsample: int = 2
    pad: bool = False
    sampled: int = 0
    kind: Literal["square"] = "square"

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ConfigError: sizes that do not divide.
        """
        _tokens_per_side(self.tile, self.patch, self.downsample)
        if self.sampled < 0:
            raise ConfigError(f"sampled {self.sampled}; expected the tokens of a picture, or 0 where patches decide")

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of the tile."""
        return self.sampled or _tokens_per_side(self.tile, self.patch, self.downsample) ** 2


Policy = TilingPolicy | HDPolicy | SquarePolicy


@dataclass(frozen=True)
class Tile:
    """One input of the vision tower.

    Attributes:
        role: ``tile`` and ``frame`` are cut out; ``thumbnail`` and ``global`` show the whole picture.
        box: Place in the resized (and padded) picture, (left, top, right, bottom).
        frame: Index of the video frame that it shows; 0 for pictures.
    """

    role: Role
    box: tuple[int, int, int, int]
    frame: int = 0


@dataclass(frozen=True)
class MediaPlan:
    """All that follows from the size of a picture or video.

    Attributes:
        width: Input width in pixels, after EXIF orientation.
        height: Input height in pixels.
        frames: Frames of a video; 1 for pictures.
        policy: The policy that made the plan.
        grid: (columns, rows) of tiles.
        resized: (width, height) that the pixels are resized to before padding and cutting.
        padding: (left, top, right, bottom) added around ``resized``.
        tiles: Tower inputs in token order.
        spans: (kind, length) runs in token order, one picture or frame after the other.
        transposed: The HD grid was chosen on the transposed (landscape) picture.
    """

    width: int
    height: int
    frames: int
    policy: Policy
    grid: tuple[int, int]
    resized: tuple[int, int]
    padding: tuple[int, int, int, int]
    tiles: tuple[Tile, ...]
    spans: tuple[tuple[SpanKind, int], ...]
    transposed: bool = False

    @property
    def tokens(self) -> int:
        """Positions that the media takes, row ends and separators included, image markers not."""
        return sum(length for _, length in self.spans)

    @property
    def tile_size(self) -> int:
        """Side of the square tower inputs in pixels."""
        return self.policy.tile

    @property
    def is_video(self) -> bool:
        """Whether the tiles are frames (a sampled clip may have one frame only)."""
        return self.tiles[0].role == "frame"

    @property
    def frame_spans(self) -> tuple[tuple[tuple[SpanKind, int], ...], ...]:
        """``spans`` cut into one group per frame (one group for a picture)."""
        size = len(self.spans) // self.frames
        return tuple(self.spans[k * size : (k + 1) * size] for k in range(self.frames))


@functools.lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Candidate grids by tile count. Equal counts stand in the order of a CPython set built as the originals build it."""
    found = {
        (i, j) for i in range(1, min_tiles + 1) for j in range(1, min_tiles + 1) if min_tiles <= i * j <= max_tiles
    }
    for n in range(min_tiles + 1, max_tiles + 1):  # the pairs that the originals' triple loop meets first at this n
        for i in range(1, min(n - 1, max_tiles // n) + 1):
            found.add((i, n))
        for j in range(1, min(n, max_tiles // n) + 1):
            found.add((n, j))
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


def tiling_grid(width: int, height: int, policy: TilingPolicy) -> tuple[int, int]:
    """The grid with the aspect ratio nearest to the picture's.

    On an exact tie the larger grid wins only if the picture has more than half of its pixels (strictly).

    Returns:
        (columns, rows).
    """
    aspect = width / height
    area = width * height
    best, best_difference = (1, 1), math.inf
    for columns, rows in _grids(policy.min_tiles, policy.max_tiles):
        difference = abs(aspect - columns / rows)
        if difference < best_difference:
            best, best_difference = (columns, rows), difference
        elif difference == best_difference and area > 0.5 * policy.tile * policy.tile * columns * rows:
            best = (columns, rows)
    return best


def _most_steps(ratio: float, limit: int) -> int:
    steps = 1
    while steps * math.ceil(steps / ratio) <= limit:
        steps += 1
    return steps - 1


def hd_steps(width: int, height: int, policy: HDPolicy) -> int:
    """Sub-images along the long side of a landscape picture: the largest s with s * ceil(s / r) <= limit.

    Raises:
        ConfigError: the policy's own ``steps`` are more than its limit allows for this shape.
    """
    steps = _most_steps(width / height, policy.limit)
    if policy.steps:
        if policy.steps > steps:
            raise ConfigError(
                f"{policy.steps} sub-images along a picture of {width} x {height} px; HD-{policy.limit} allows {steps}: lower "
                "steps or raise limit"
            )
        return policy.steps
    if policy.mode == "identity":
        steps = min(steps, math.ceil(width * policy.scale / policy.tile))
    return steps


def hd_range(width: int, height: int, policy: HDPolicy) -> tuple[int, int]:
    """Least and most sub-images along the long side that dynamic training draws for a picture (4KHD, sec. 3.3).

    Training at mixed resolutions shows a picture anywhere between its own size and the limit's; a picture that is larger
    than the limit allows is always shown at the limit.
    """
    long, short = max(width, height), min(width, height)
    most = _most_steps(long / short, policy.limit)
    return min(math.ceil(long / policy.tile), most), most


def grids_of(span_types: Sequence[int], side: int) -> tuple[tuple[int, int], ...]:
    """The grids of pictures of an `HDPolicy`, read back from the span types of their prompt.

    A picture takes ``side`` rows of the global view, a separator, and ``side x rows`` rows of ``side x columns`` tokens; so
    row ends between two separators count the rows, and the first row behind a separator the columns.

    Args:
        span_types: `SpanKind` of every position of one or more prompts.
        side: Merged tokens a side of a tile: 12 for 4KHD.

    Returns:
        (columns, rows) of each picture.

    Raises:
        PromptError: span types that no such plan has.
    """
    image = [kind for kind in span_types if kind != SpanKind.TEXT]
    found: list[tuple[int, int]] = []
    separators = [place for place, kind in enumerate(image) if kind == SpanKind.SEPARATOR]
    expected: list[int] = []
    for number, place in enumerate(separators):
        end = separators[number + 1] if number + 1 < len(separators) else len(image)
        part = image[place + 1 : end]
        ends = part.count(SpanKind.ROW_END) - (side if number + 1 < len(separators) else 0)
        first = part.index(SpanKind.ROW_END) if ends > 0 else 0
        grid = (first // side, ends // side)
        if min(grid) < 1:
            break
        found.append(grid)
        for kind, length in _hd_spans(side, *grid):
            expected += [int(kind)] * length
    if expected != [int(kind) for kind in image]:
        raise PromptError(
            f"{len(image)} image positions are no pictures of global and local views with tiles of {side} x {side} tokens; "
            "plan and render them with the model's HDPolicy"
        )
    return tuple(found)


def _hd_spans(side: int, columns: int, rows: int) -> list[tuple[SpanKind, int]]:
    spans = [(SpanKind.VISUAL, side), (SpanKind.ROW_END, 1)] * side
    spans += [(SpanKind.SEPARATOR, 1)]
    spans += [(SpanKind.VISUAL, side * columns), (SpanKind.ROW_END, 1)] * (side * rows)
    return spans


def _plan_tiling(width: int, height: int, policy: TilingPolicy) -> MediaPlan:
    columns, rows = tiling_grid(width, height, policy)
    side = policy.tile
    tiles = [
        Tile("tile", (column * side, row * side, (column + 1) * side, (row + 1) * side))
        for row in range(rows)
        for column in range(columns)
    ]
    if policy.thumbnail and len(tiles) > 1:
        tiles.append(Tile("thumbnail", (0, 0, columns * side, rows * side)))
    return MediaPlan(
        width=width,
        height=height,
        frames=1,
        policy=policy,
        grid=(columns, rows),
        resized=(columns * side, rows * side),
        padding=(0, 0, 0, 0),
        tiles=tuple(tiles),
        spans=((SpanKind.VISUAL, len(tiles) * policy.tokens_per_tile),),
    )


def _plan_hd(width: int, height: int, policy: HDPolicy) -> MediaPlan:
    transposed = width < height
    long, short = (height, width) if transposed else (width, height)
    steps = hd_steps(long, short, policy)
    new_long = policy.tile * steps
    new_short = max(1, int(new_long / (long / short)))  # extreme strips would truncate to 0
    total = math.ceil(new_short / policy.tile) * policy.tile
    missing = total - new_short
    first = missing // 2 if policy.padding == "centre" else 0
    across = total // policy.tile
    if transposed:
        resized, padding, grid = (new_short, new_long), (first, 0, missing - first, 0), (across, steps)
    else:
        resized, padding, grid = (new_long, new_short), (0, first, 0, missing - first), (steps, across)
    columns, rows = grid
    side = policy.tile
    tiles = [Tile("global", (0, 0, columns * side, rows * side))]
    tiles += [
        Tile("tile", (column * side, row * side, (column + 1) * side, (row + 1) * side))
        for row in range(rows)
        for column in range(columns)
    ]
    merged = _tokens_per_side(side, policy.patch, policy.downsample)
    return MediaPlan(
        width=width,
        height=height,
        frames=1,
        policy=policy,
        grid=grid,
        resized=resized,
        padding=padding,
        tiles=tuple(tiles),
        spans=tuple(_hd_spans(merged, columns, rows)),
        transposed=transposed,
    )


def _plan_square(width: int, height: int, policy: SquarePolicy) -> MediaPlan:
    side = policy.tile
    padding = (0, 0, 0, 0)
    if policy.pad:  # here the padding comes before the resize: it is in input pixels
        longest = max(width, height)
        left, top = (longest - width) // 2, (longest - height) // 2
        padding = (left, top, longest - width - left, longest - height - top)
    return MediaPlan(
        width=width,
        height=height,
        frames=1,
        policy=policy,
        grid=(1, 1),
        resized=(side, side),
        padding=padding,
        tiles=(Tile("tile", (0, 0, side, side)),),
        spans=((SpanKind.VISUAL, policy.tokens_per_tile),),
    )


def _plan_frames(width: int, height: int, policy: Policy, frames: int) -> MediaPlan:
    if not isinstance(policy, TilingPolicy):
        raise ConfigError(f"videos are planned by a TilingPolicy, one tile a frame; given {type(policy).__name__}")
    side = policy.tile
    return MediaPlan(
        width=width,
        height=height,
        frames=frames,
        policy=replace(policy, min_tiles=1, max_tiles=1),
        grid=(1, 1),
        resized=(side, side),
        padding=(0, 0, 0, 0),
        tiles=tuple(Tile("frame", (0, 0, side, side), frame) for frame in range(frames)),
        spans=((SpanKind.VISUAL, policy.tokens_per_tile),) * frames,
    )


@functools.lru_cache(maxsize=65536)
def plan_media(width: int, height: int, policy: Policy, frames: int | None = None) -> MediaPlan:
    """Plans a picture, or a video of equally large frames.

    A video is planned with one tile a frame (the published video setting: ``max_dynamic_patch`` 1).

    Args:
        width: Width in pixels after EXIF orientation.
        height: Height in pixels.
        policy: How pixels become tiles.
        frames: Sampled frames of a video, which may be 1; None for a picture.

    Returns:
        The plan; equal arguments give the same object.

    Raises:
        MediaError: a size or frame count below 1.
        ConfigError: a video with a policy that has no frames.
    """
    if width < 1 or height < 1:
        raise MediaError(f"a picture of {width} x {height} px has no pixels; expected both sides >= 1")
    if frames is not None:
        if frames < 1:
            raise MediaError(f"a video of {frames} frames cannot be planned; expected at least 1 sampled frame")
        return _plan_frames(width, height, policy, frames)
    if isinstance(policy, TilingPolicy):
        return _plan_tiling(width, height, policy)
    if isinstance(policy, HDPolicy):
        return _plan_hd(width, height, policy)
    return _plan_square(width, height, policy)
