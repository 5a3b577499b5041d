"""XComposer2-4KHD's views of a picture: one global view and a grid of local ones.

arXiv 2404.06512, sec. 3.2, and the variant of XComposer-2.5 (2407.03320); both are described by the plan alone. The
picture is resized with Pillow's antialiased bilinear filter and padded with white: the canvas. After normalisation the
canvas is cut into local views, row by row, and interpolated to the global view: bicubic *without* antialias on the
normalised, padded tensor. That global view exists only in floating point, so HD plans have no 8-bit tiles as tiling
plans have: keep `hd_canvas` (8 bits, lossless), normalise it, and let `hd_views` make the tower's inputs.

A portrait picture is transposed, resized and transposed back, as in the original: Pillow filters rows first and rounds
in between, so resizing it directly would differ in the last bit.
Cost: one resize; the canvas of HD-55 has 6.2 million pixels (18 MB as 8 bits, 74 MB as float32).

Axes: C channels (3), H W height and width in pixels, N views (1 + rows * columns), S side of a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from vedere.errors import ConfigError
from vedere.plan import HDPolicy, MediaPlan
from vedere.vision.pixels import check_plan, to_chw

if TYPE_CHECKING:
    import torch

_WHITE = (255, 255, 255)


def _need_hd(plan: MediaPlan) -> None:
    if not isinstance(plan.policy, HDPolicy):
        raise ConfigError(f"a plan of a {type(plan.policy).__name__} has no HD views; use media_tiles, or an HDPolicy")


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


def hd_views(canvas_CHW: torch.Tensor, plan: MediaPlan) -> torch.Tensor:
    """The tower's inputs of one picture: the global view, then the local views row by row.

    Args:
        canvas_CHW: Normalised canvas [C, H, W] of `hd_canvas`.
        plan: The plan that the canvas was made with.

    Returns:
        [N, C, S, S] with N = len(plan.tiles), in the canvas's dtype.

    Raises:
        ConfigError: a plan of another policy, a canvas that is not floating point, or one of another shape.
    """
    import torch

    _need_hd(plan)
    (columns, rows), side = plan.grid, plan.tile_size
    if not canvas_CHW.is_floating_point() or canvas_CHW.shape != (3, rows * side, columns * side):
        raise ConfigError(
            f"canvas given as {canvas_CHW.dtype} {list(canvas_CHW.shape)}; expected a normalised "
            f"[3, {rows * side}, {columns * side}]: normalise(hd_canvas(image, plan))"
        )
    local = canvas_CHW.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
    return torch.cat([global_view(canvas_CHW, side)[None], local])
