"""Lettering: lines of text in a typeface on a picture, and where each character stands.

Text is set glyph by glyph from cached masks (so that the box of each character is known exactly), mapped onto the picture
by one projective transform (turn, shear, perspective), and coloured: gradients, panels, frames, underlines, blur and
noise. A third of the pictures are plain black on white, as screenshots and slides are. Ligatures are not set: every
character has a box of its own. A box spans at least the height of an x, so that a full stop has a box like a letter's.

Cost: 2 to 3 ms a picture of 160 x 160 px on one core; fonts and glyph masks take up to some 200 MB.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vedere.data.build.record import SIDE
from vedere.data.build.typefaces import Typeface

Colour: TypeAlias = tuple[int, int, int]
Array: TypeAlias = np.ndarray[Any, Any]

_LADDER = (12, 18, 27, 40, 60, 90, 135)  # font sizes that are set, in px; the transform does the rest
_MEASURED = 64  # font size at which distances are taken
_CONTRAST = 90.0
_NARROWEST, _LOWEST = 8, 15  # px of a tile (`SIDE`) that a character and a line should have at least
_GAP = 0.9  # of the font size: at least so much lies between the two parts of a line
_SPREAD = 0.1  # of the font size: how far a box may reach beyond its ink, between letters set wide


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a text looks on its picture.

    Attributes:
        ink: colour of the text.
        ground: colour of the background.
        fade: second colour of a background that changes from one side to another, or None.
        panel: colour of a signboard around the text, on which it stands, or None.
        frame: whether a frame in the ink's colour runs along the picture's border.
        underline: whether the lines of text are underlined.
        angle: turn in degrees.
        shear: sideways slant, as a share of the height.
        perspective: largest shift of a corner, as a share of the block's sides.
        tracking: extra space between letters, as a share of the font size.
        blur: radius in pixels.
        noise: standard deviation, 0 to 255.
        clutter: shapes on the background, behind the text and in colours that it stands out from.
    """

    ink: Colour = (0, 0, 0)
    ground: Colour = (255, 255, 255)
    fade: Colour | None = None
    panel: Colour | None = None
    frame: bool = False
    underline: bool = False
    angle: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    tracking: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    clutter: int = 0


@dataclass(frozen=True, kw_only=True)
class Lettering:
    """A picture of text.

    Attributes:
        image: RGB picture.
        characters: its characters in reading order, without spaces.
        quads: ``[len(characters), 4, 2]`` float: corners (x, y) of each character's box in pixels, clockwise from the upper
            left.
    """

    image: Image.Image
    characters: str
    quads: Array


@lru_cache(maxsize=1600)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font without ligatures, "" being Pillow's own."""
    if path:
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # with FreeType, which the wheels of Pillow carry
    return font


@lru_cache(maxsize=40_000)
def _glyph(path: str, size: int, character: str) -> tuple[Array, int, int]:
    """Mask of the ink alone, and where its upper left corner lies from the pen on the baseline."""
    font = load_font(path, size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character, anchor="ls"))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)), 0)
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font, anchor="ls")
    inner = image.getbbox() or (0, 0, 1, 1)  # what the font tells is as wide as the advance
    return np.asarray(image.crop(inner)), left + inner[0], top + inner[1]


@lru_cache(maxsize=200_000)
def _advance(path: str, character: str, following: str) -> float:
    """Distance to the next pen position with kerning, as a share of the font size."""
    font = load_font(path, _MEASURED)
    return (font.getlength(character + following) - font.getlength(following)) / _MEASURED


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Set text: a mask, its characters, and their boxes (left, top, right, bottom) on the mask."""

    mask: Array
    characters: str
    boxes: Array


def _set_piece(piece: str, path: str, size: int, tracking: float) -> tuple[list[tuple[str, float]], float]:
    """Each character with its pen position, and where the pen ends."""
    pen, places = 0.0, []
    for character, following in zip(piece, [*piece[1:], ""], strict=True):
        places.append((character, pen))
        pen += (_advance(path, character, following) + tracking) * size
    return places, pen


def _set_lines(
    lines: Sequence[str], path: str, size: int, tracking: float, align: float
) -> tuple[list[list[tuple[str, float]]], float]:
    """All lines with their pen positions, and the width of the block; what follows a tab stands at the right edge."""
    pieces = [[_set_piece(piece, path, size, tracking) for piece in line.split("\t")] for line in lines]
    widest = max(sum(width for _, width in line) + _GAP * size * (len(line) - 1) for line in pieces)
    placed = []
    for line in pieces:
        starts = (
            [(widest - line[0][1]) * align] if len(line) == 1 else [0.0, *(widest - width for _, width in line[1:])]
        )
        shifted = zip(starts, line, strict=True)
        placed.append([(character, start + pen) for start, (places, _) in shifted for character, pen in places])
    return placed, widest


def _boxes(line: Sequence[tuple[str, float]], path: str, size: int, baseline: float) -> tuple[str, list[list[float]]]:
    """Boxes of a line's characters: ink sideways, meeting halfway between neighbours; x height or more upwards."""
    _, _, x_top = _glyph(path, size, "x")
    inks = []
    for character, pen in line:
        if character == " ":
            continue
        mask, left, top = _glyph(path, size, character)
        inks.append(
            [pen + left, baseline + min(top, x_top), pen + left + mask.shape[1], baseline + max(top + mask.shape[0], 0)]
        )
    reach = _SPREAD * size
    boxes = [[left - reach / 2, top, right + reach / 2, bottom] for left, top, right, bottom in inks]
    for first, second, box, following in zip(inks, inks[1:], boxes, boxes[1:], strict=False):
        middle = (first[2] + second[0]) / 2
        box[2] = min(middle, first[2] + reach) if middle > first[2] else middle
        following[0] = max(middle, second[0] - reach) if middle < second[0] else middle
    return "".join(character for character, _ in line if character != " "), boxes


def _set_block(lines: Sequence[str], face: Typeface, size: int, look: Look, leading: float, align: float) -> _Block:
    placed, widest = _set_lines(lines, face.path, size, look.tracking, align)
    pad = size // 2
    step = leading * size
    height = int(pad * 2 + size * 1.1 + step * (len(lines) - 1) + 0.3 * size)
    mask = np.zeros((height, int(widest) + 2 * pad + 2), np.uint8)
    characters, boxes = "", []
    for row, places in enumerate(placed):
        baseline = pad + round(size * 0.95 + row * step)
        shifted = [(character, pad + pen) for character, pen in places]
        for character, pen in shifted:
            glyph, left, top = _glyph(face.path, size, character)
            x, y = max(0, round(pen) + left), max(0, baseline + top)
            place = mask[y : y + glyph.shape[0], x : x + glyph.shape[1]]
            np.maximum(place, glyph[: place.shape[0], : place.shape[1]], out=place)
        if look.underline:
            top = baseline + round(0.18 * size)
            end = shifted[-1][1] + _advance(face.path, shifted[-1][0], "") * size
            mask[top : top + max(1, size // 14), round(shifted[0][1]) : round(end)] = 255
        text, found = _boxes(shifted, face.path, size, baseline)
        characters += text
        boxes += found
    corners = np.array(boxes, np.float64)
    left, top = np.floor(corners[:, :2].min(0)).astype(int)
    right, bottom = np.ceil(corners[:, 2:].max(0)).astype(int)
    bottom += round(0.3 * size) if look.underline else 0
    left, top = max(0, left - 2), max(0, top - 2)
    corners -= (left, top, left, top)
    return _Block(mask=mask[top : bottom + 2, left : right + 2], characters=characters, boxes=corners)


def _homography(source: Array, target: Array) -> Array:
    """The 3 x 3 matrix that maps four points onto four points."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def _map(matrix: Array, points: Array) -> Array:
    homogeneous = np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1) @ matrix.T
    return np.asarray(homogeneous[..., :2] / homogeneous[..., 2:])


def _corners(width: float, height: float, look: Look, rng: random.Random) -> Array:
    """Where the corners of a block go, around 0."""
    angle = np.deg2rad(look.angle)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    corners[:, 0] -= corners[:, 1] * look.shear
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = [[rng.uniform(-1, 1) * look.perspective for _ in range(2)] for _ in range(4)]
    return np.asarray(corners @ turn.T + np.array(shift) * (width / 4, height))


def draw_text(
    lines: Sequence[str],
    face: Typeface,
    size: tuple[int, int],
    rng: random.Random,
    *,
    look: Look | None = None,
    fill: float = 0.85,
    leading: float = 1.25,
    align: float = 0.5,
    centred: bool = False,
) -> Lettering:
    """Draw lines of text on a picture.

    Args:
        lines: one or more lines, none of them blank; what follows a tab in a line stands at the right edge.
        face: a typeface; small letters become capitals where it has nothing else.
        size: width and height of the picture.
        rng: decides the place and the corners of the perspective.
        look: colours and effects; plain black on white if None.
        fill: share of the width or the height that the text takes, whichever is reached first.
        leading: distance of lines, as a share of the font size.
        align: 0 left, 0.5 centred, 1 right.
        centred: put the block into the middle instead of anywhere it fits.

    Returns:
        The picture and the box of each character.
    """
    look = look or Look()
    lines = [line.upper() for line in lines] if face.capitals else list(lines)
    room = np.array(size) * (0.9 if look.frame or look.panel else 1.0)
    probe = _set_block(lines, face, 40, look, leading, align).mask.shape
    scale = min(fill * room[0] / probe[1], min(fill, 0.92) * room[1] / probe[0])
    wanted = 40 * scale
    step = next((step for step in _LADDER if step >= wanted * 0.95), _LADDER[-1])
    block = _set_block(lines, face, step, look, leading, align)
    height, width = block.mask.shape
    scale = min(fill * room[0] / width, min(fill, 0.92) * room[1] / height)
    target = _corners(width * scale, height * scale, look, rng)
    span = np.ptp(target, axis=0)
    target *= min(1.0, *(0.97 * room / span))
    low, high = target.min(0), target.max(0)
    slack = np.maximum(0.0, (room - (high - low)) / 2)
    shift = np.array(size) / 2 - (low + high) / 2
    if not centred:
        shift = shift + slack * [rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9)]
    target = target + shift
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    matrix = _homography(source, target)
    left, top, right, bottom = block.boxes.T
    quads = _map(
        matrix, np.stack([np.stack(c, -1) for c in ((left, top), (right, top), (right, bottom), (left, bottom))], 1)
    )
    inverse = np.linalg.inv(matrix)
    mask = Image.fromarray(block.mask).transform(
        size, Image.Transform.PERSPECTIVE, (inverse / inverse[2, 2]).flatten()[:8].tolist(), Image.Resampling.BILINEAR
    )
    return Lettering(image=_paint(mask, target, look, rng), characters=block.characters, quads=quads)


def _paint(mask: Image.Image, corners: Array, look: Look, rng: random.Random) -> Image.Image:
    """Colour a text's mask."""
    width, height = mask.size
    page = Image.new("RGB", mask.size, look.ground)
    if look.fade is not None:
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(mask.size)
        page.paste(look.fade, (0, 0), ramp)
    pen = ImageDraw.Draw(page)
    for _ in range(look.clutter):
        _scribble(pen, mask.size, contrasting(look.ink, rng), rng)
    if look.panel is not None:
        middle = corners.mean(0)
        wide = middle + (corners - middle) * 1.04 + np.sign(corners - middle) * (0.03 * width, 0.05 * height)
        pen.polygon([tuple(point) for point in wide], fill=look.panel)
    if look.frame:
        edge = max(1, round(min(mask.size) * 0.015))
        inset = rng.randint(0, 2 * edge)
        pen.rectangle((inset, inset, width - 1 - inset, height - 1 - inset), outline=look.ink, width=edge)
    page.paste(look.ink, (0, 0), mask)
    if look.blur > 0:
        page = page.filter(ImageFilter.BoxBlur(look.blur))
    if look.noise > 0:
        grain = np.random.default_rng(rng.getrandbits(64)).standard_normal((height, width, 1), np.float32) * look.noise
        page = Image.fromarray((np.asarray(page) + grain).clip(0, 255).astype(np.uint8))
    return page


def _scribble(pen: ImageDraw.ImageDraw, size: tuple[int, int], colour: Colour, rng: random.Random) -> None:
    """One shape anywhere."""
    points = [(rng.uniform(-0.1, 1.1) * size[0], rng.uniform(-0.1, 1.1) * size[1]) for _ in range(3)]
    (x0, y0), (x1, y1), _ = points
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    width = rng.randint(1, 8)
    shape = rng.randrange(5)
    if shape == 0:
        pen.ellipse(box, fill=colour)
    elif shape == 1:
        pen.rectangle(box, fill=colour)
    elif shape == 2:
        pen.polygon(points, fill=colour)
    elif shape == 3:
        pen.line(points, fill=colour, width=width)
    else:
        pen.ellipse(box, outline=colour, width=width)


def draw_nothing(size: tuple[int, int], rng: random.Random, look: Look) -> Lettering:
    """Return a picture with that look and no text on it."""
    corners = (
        np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * size * rng.uniform(0.1, 0.6)
        + np.array(size) / 2
    )
    return Lettering(
        image=_paint(Image.new("L", size, 0), corners, look, rng), characters="", quads=np.zeros((0, 4, 2))
    )


def _brightness(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def contrasting(colour: Colour, rng: random.Random) -> Colour:
    """Return a colour whose brightness is well apart."""
    while True:
        red, green, blue = (rng.randrange(256) for _ in range(3))
        if abs(_brightness((red, green, blue)) - _brightness(colour)) >= _CONTRAST:
            return red, green, blue


def dress(look: Look, rng: random.Random) -> Look:
    """Return the look with effects drawn: turn, slant, perspective, spacing, frame, underline, blur, noise, shapes."""
    return replace(
        look,
        frame=rng.random() < 0.12,
        underline=rng.random() < 0.08,
        angle=rng.gauss(0, 3.0) if rng.random() < 0.5 else 0.0,
        shear=rng.uniform(-0.2, 0.2) if rng.random() < 0.2 else 0.0,
        perspective=rng.uniform(0.02, 0.2) if rng.random() < 0.2 else 0.0,
        tracking=rng.uniform(-0.02, 0.2) if rng.random() < 0.25 else 0.0,
        blur=rng.uniform(0.2, 0.9) if rng.random() < 0.25 else 0.0,
        noise=rng.uniform(2, 16) if rng.random() < 0.35 else 0.0,
        clutter=rng.randint(1, 4) if rng.random() < 0.15 else 0,
    )


def legible_fill(lines: Sequence[str], least: float) -> float:
    """Return the share of a picture that lines must fill to be read, at least `least`, at most 0.97."""
    needed = max(_NARROWEST * max(map(len, lines)), _LOWEST * len(lines)) / SIDE
    return min(0.97, max(least, needed))


def draw_look(rng: random.Random) -> Look:
    """Draw a look: a third plain black on white, the others with any colours that stand apart, and effects."""
    if rng.random() < 1 / 3:
        return Look(tracking=rng.uniform(0, 0.1) if rng.random() < 0.1 else 0.0)
    grey = rng.random() < 0.25
    shade = rng.randrange(256)
    ground = (shade, shade, shade) if grey else (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    ink = contrasting(ground, rng)
    look = Look(ink=ink, ground=ground)
    if rng.random() < 0.2:
        fade = contrasting(ink, rng)
        dark = _brightness(ink) > _brightness(ground)
        if (_brightness(ink) > _brightness(fade)) == dark:  # the ink stands out on both ends and between them
            look = replace(look, fade=fade)
    elif rng.random() < 0.15:
        look = replace(look, panel=contrasting(ink, rng))
    return dress(look, rng)
