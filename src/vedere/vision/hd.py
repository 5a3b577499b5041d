"""XComposer2-4KHD's views of a picture: one global view and a grid of local ones.

arXiv 2404.06512, sec. 3.2, and the variant of XComposer-2.5 (2407.03320); both are described by the plan alone. The
picture is resized with Pillow's antialiased bilinear filter and padded with white: the canvas. The local views are cut
out of it, row by row, 8-bit tiles like any others. The global view is interpolated from the normalised canvas, bicubic
*without* antialias, and exists only in floating point: so `hd_tiles` leaves it out, and `tower_inputs`, which runs where
the model runs, lays tiles and grid together to the canvas again and puts the global view in front. What is stored, packed
and sent stays 8-bit, lossless, and a tile less than what the model encodes.

A portrait picture is transposed, resized and transposed back, as in the original: Pillow filters rows first and rounds
in between, so resizing it directly would differ in the last bit.
Cost: one resize; the canvas of HD-55 has 6.2 million pixels (18 MB as 8 bits, 74 MB as float32).

Axes: C channels (3), H W height and width of the canvas in pixels, N tiles, G pictures, S side of a tile.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from vedere.errors import ConfigError
from vedere.plan import HDPolicy, MediaPlan
from vedere.vision.pixels import Statistics, check_plan, normalise, to_chw
from vedere.vision.tiling import jpeg_augment

if TYPE_CHECKING:
    import torch

_WHITE = (255, 255, 255)


def _need_hd(plan: MediaPlan) -> None:
    if not isinstance(plan.policy, HDPolicy):
        raise ConfigError(f"a plan of a {type(plan.policy).__name__} has no HD tiles; use media_tiles, or an HDPolicy")


def hd_image(image: Image.Image, plan: MediaPlan) -> Image.Image:
    """The resized and padded picture of an HD plan as a PIL image.

    Raises:
        ConfigError: a plan of another policy.
        MediaError: a plan made for another size.
    """
    _need_hd(plan)
    check_plan(image, plan)
    if plan.transposed:
        long, short = plan.resized[1], plan.resized[0]
        turned = image.transpose(Image.Transpose.TRANSPOSE).resize((long, short), Image.Resampling.BILINEAR)
        resized = turned.transpose(Image.Transpose.TRANSPOSE)
    else:
        resized = image.resize(plan.resized, Image.Resampling.BILINEAR)
    return ImageOps.expand(resized, border=plan.padding, fill=_WHITE)


def hd_canvas(image: Image.Image, plan: MediaPlan) -> np.ndarray[Any, Any]:
    """The resized and padded picture of an HD plan.

    Args:
        image: RGB picture of the plan's size.
        plan: A plan of an `HDPolicy`.

    Returns:
        uint8 [C, H, W] with H = rows * S and W = columns * S.

    Raises:
        ConfigError: a plan of another policy.
        MediaError: a plan made for another size.
    """
    return to_chw(hd_image(image, plan))


def hd_tiles(image: Image.Image, plan: MediaPlan, augment: random.Random | None = None) -> np.ndarray[Any, Any]:
    """The local views of an HD plan; `tower_inputs` adds the global one.

    Args:
        image: RGB picture of the plan's size.
        plan: A plan of an `HDPolicy`.
        augment: Random source of the JPEG augmentation, applied to each tile; the global view is then that of these tiles.

    Returns:
        uint8 [N, C, S, S] with N = rows * columns, row by row, not normalised.

    Raises:
        ConfigError: a plan of another policy.
        MediaError: a plan made for another size.
    """
    canvas = hd_image(image, plan)
    tiles = [canvas.crop(tile.box) for tile in plan.tiles if tile.role == "tile"]
    return np.stack([to_chw(tile if augment is None else jpeg_augment(tile, augment)) for tile in tiles])


def global_view(canvas_CHW: torch.Tensor, side: int) -> torch.Tensor:
    """The whole normalised canvas, squashed to a square: bicubic in float32, no antialias, in the canvas's dtype.

    Returns:
        [C, side, side].
    """
    import torch

    view = torch.nn.functional.interpolate(
        canvas_CHW[None].float(), size=(side, side), mode="bicubic", align_corners=False
    )
    return view[0].to(canvas_CHW.dtype)


def tower_inputs(tiles_NCSS: torch.Tensor, grids: Sequence[tuple[int, int]], statistics: Statistics) -> torch.Tensor:
    """What the model encodes: normalised tiles, and before those of each grid their global view.

    Args:
        tiles_NCSS: uint8 tiles [N, C, S, S] of all pictures.
        grids: (columns, rows) of each picture of an HD plan, G of them, in order; empty under any other policy.
        statistics: As for `normalise`.

    Returns:
        float32 [N + G, C, S, S], on the same device.

    Raises:
        ConfigError: more or fewer tiles than the grids have places, or what `normalise` refuses.
    """
    import torch

    local = normalise(tiles_NCSS, statistics)
    if not grids:
        return local
    sizes = [columns * rows for columns, rows in grids]
    if len(local) != sum(sizes):
        raise ConfigError(f"{len(local)} tiles for grids of {sum(sizes)}; give the tiles of exactly these pictures")
    side, views = local.shape[-1], []
    for (columns, rows), end in zip(grids, itertools.accumulate(sizes), strict=True):
        own = local[end - columns * rows : end]
        canvas = (
            own.reshape(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
        )
        views += [global_view(canvas, side)[None], own]
    return torch.cat(views)
