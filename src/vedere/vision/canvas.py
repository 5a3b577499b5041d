"""XComposer-2.5's way to show a video: its frames laid out on one canvas, each under a caption, the canvas as one picture.

arXiv 2407.03320: frames are joined along their short side, their numbers drawn in. The released code gives the
measures. A frame's long side becomes 1,120 pixels; frames wider than high stand below each other, others beside each other.
Above each is a white strip of 40 pixels with its caption ``<IMAGE k>``, k from 0; after each come 10 white pixels, with a
black line of 2 in their middle except after the last. At most 64 frames are shown, evenly thinned.

The model takes the canvas with its short side at 560 pixels and the long one filled with white to whole tiles of 560
(`fitted`). Its own picture policy (`vedere.plan.HDPolicy.xcomposer25`) cuts exactly these tiles out of that.

Differs: captions are set in Pillow's own font instead of one that is fetched from the network, so their pixels differ.
Cost: 64 frames of 16:9 are a canvas of 1120 x 43520 px (146 MB as RGB, a second or two) and 39 tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vedere.errors import ConfigError, MediaError

MOST_FRAMES = 64
"""Frames of a canvas."""
TILE = 560
"""Side of a tile of XComposer-2.5."""
Box = tuple[int, int, int, int]

_LONG = 2 * TILE
_STRIP = 40
_GAP = 10
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class CanvasLayout:
    """Where things are on a canvas, in pixels.

    Attributes:
        size: (width, height) of the canvas.
        frames: (left, top, right, bottom) of each frame, in their order.
        below: Frames stand below each other; otherwise beside each other.
    """

    size: tuple[int, int]
    frames: tuple[Box, ...]
    below: bool


def thinned(count: int, most: int = MOST_FRAMES) -> tuple[int, ...]:
    """Places of the frames that are shown: all of ``count``, or ``most`` of them at int(k count / most).

    Raises:
        ConfigError: no frames, or none allowed.
    """
    if count < 1 or most < 1:
        raise ConfigError(f"{count} frames of which at most {most} are shown; expected at least 1 of each")
    if count <= most:
        return tuple(range(count))
    return tuple(int(place * (count / most)) for place in range(most))


def canvas_layout(width: int, height: int, count: int) -> CanvasLayout:
    """The layout of ``count`` frames of one size.

    Raises:
        ConfigError: no frame, an empty one, or more than `MOST_FRAMES`.
    """
    if not 1 <= count <= MOST_FRAMES or width < 1 or height < 1:
        raise ConfigError(
            f"{count} frames of {width} x {height} px; expected 1 to {MOST_FRAMES} frames of at least 1 px a side (thinned "
            "says which of more to take)"
        )
    below, ratio = width > height, width / height
    wide = _LONG if below else max(1, int(_LONG * ratio))
    high = max(1, int(_LONG / ratio)) if below else _LONG
    if below:
        step = _STRIP + high + _GAP
        boxes = [(0, k * step + _STRIP, wide, k * step + _STRIP + high) for k in range(count)]
        return CanvasLayout(size=(wide, count * step), frames=tuple(boxes), below=True)
    step = wide + _GAP
    boxes = [(k * step, _STRIP, k * step + wide, _STRIP + high) for k in range(count)]
    return CanvasLayout(size=(count * step, _STRIP + high), frames=tuple(boxes), below=False)


def frame_canvas(frames: Sequence[Image.Image]) -> Image.Image:
    """Lays frames out on a canvas, in their order.

    Args:
        frames: RGB pictures of one size, 1 to `MOST_FRAMES`.

    Returns:
        An RGB picture; `canvas_layout` says where each frame is.

    Raises:
        ConfigError: none or too many.
        MediaError: frames of several sizes.
    """
    sizes = dict.fromkeys(frame.size for frame in frames)
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        raise MediaError(f"the frames of a canvas have several sizes ({shown} px); expected one: resize them")
    layout = canvas_layout(*next(iter(sizes), (1, 1)), len(frames))
    canvas = Image.new("RGB", layout.size, _WHITE)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_STRIP)
    for number, (frame, box) in enumerate(zip(frames, layout.frames, strict=True)):
        left, top, right, bottom = box
        draw.text((left, top - _STRIP), f"<IMAGE {number}>", font=font, fill=_BLACK)
        canvas.paste(frame.resize((right - left, bottom - top), Image.Resampling.BILINEAR), box)
        if number + 1 < len(frames):
            middle = _GAP // 2 + (bottom if layout.below else right)
            end = (layout.size[0], middle) if layout.below else (middle, layout.size[1])
            draw.line([(0, middle) if layout.below else (middle, 0), end], fill=_BLACK, width=2)
    return canvas


def fitted(canvas: Image.Image) -> Image.Image:
    """The canvas as the model takes it: short side 560, the long one filled with white at its end to whole tiles.

    Returns:
        An RGB picture, one tile by `canvas_tiles`; itself again for one that is fitted.
    """
    turned = canvas.width < canvas.height  # as in the original, which resizes landscape pictures alone
    lying = canvas.transpose(Image.Transpose.TRANSPOSE) if turned else canvas
    length = int(TILE * (lying.width / lying.height))
    lying = lying.resize((length, TILE), Image.Resampling.BILINEAR)
    filled = Image.new("RGB", (math.ceil(length / TILE) * TILE, TILE), _WHITE)
    filled.paste(lying)
    return filled.transpose(Image.Transpose.TRANSPOSE) if turned else filled


def canvas_tiles(layout: CanvasLayout) -> int:
    """Tiles of a canvas once it is fitted."""
    short, long = sorted(layout.size)
    return math.ceil(int(TILE * (long / short)) / TILE)
