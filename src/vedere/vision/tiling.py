"""Cutting a picture into the tiles of its plan: InternVL's grid plus thumbnail, and the single square tile.

InternVL 1.5 (arXiv 2404.16821, sec. 3.2): the picture is resized to the whole grid with Pillow's antialiased bicubic
filter, aspect ratio not kept, and cut row by row; the thumbnail is a second resize, of the original picture. The
original code then resizes each tile once more to its own size; Pillow returns a copy there, so that step is left out.

The square tile is either squashed (CLIP) or first padded to a square with the mean colour (``pad2square``).
Cost: two resizes a picture, about 10 ns an output pixel.
"""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from vedere.errors import MediaError
from vedere.plan import MediaPlan

_JPEG_QUALITY = (75, 100)
_LARGE = 500_000  # pixels; the resizes of smaller pictures take a few milliseconds
_HANDS = 2  # threads that resize a picture
_MOST_PADDED = 180_000_000  # pixels of a padded square, 0.5 GB: a strip of 1 x 1,000,000 px would need 3 TB


def jpeg_augment(image: Image.Image, rng: random.Random) -> Image.Image:
    """Re-encodes a picture as JPEG with a quality drawn from 75..100, both included (InternVL's ``data_augment``)."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=rng.randint(*_JPEG_QUALITY))
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def tiles(image: Image.Image, plan: MediaPlan, augment: random.Random | None = None) -> list[Image.Image]:
    """The tiles of a tiling plan in token order, each S x S; ``augment`` re-encodes each as JPEG."""
    thumbnail = any(tile.role == "thumbnail" for tile in plan.tiles)
    sizes = [plan.resized, (plan.tile_size, plan.tile_size)][: 2 if thumbnail else 1]
    whole, *small = _resized(image, sizes)
    found = [small[0] if tile.role == "thumbnail" else whole.crop(tile.box) for tile in plan.tiles]
    return found if augment is None else [jpeg_augment(picture, augment) for picture in found]


def _resized(image: Image.Image, sizes: list[tuple[int, int]]) -> list[Image.Image]:
    """The picture in each size; of a large one with threads, if torch may use some (Pillow lets go of the GIL)."""
    if image.width * image.height < _LARGE or torch.get_num_threads() == 1:
        return [image.resize(size, Image.Resampling.BICUBIC) for size in sizes]
    image.load()  # decoded once, before all read it
    with ThreadPoolExecutor(_HANDS) as pool:
        if len(sizes) == 1:
            return [_in_bands(image, sizes[0], pool)]
        return list(pool.map(lambda size: image.resize(size, Image.Resampling.BICUBIC), sizes))


def _in_bands(image: Image.Image, size: tuple[int, int], pool: ThreadPoolExecutor) -> Image.Image:
    """The bits of ``resize``, which goes over rows first and rounds, then over columns: the rows are shared out."""
    width, height = image.size
    bands = min(_HANDS, height)
    edges = [height * band // bands for band in range(bands + 1)]

    def narrowed(band: int) -> Image.Image:
        top, bottom = edges[band], edges[band + 1]
        return image.resize((size[0], bottom - top), Image.Resampling.BICUBIC, box=(0, top, width, bottom))

    whole = Image.new(image.mode, (size[0], height))
    for top, part in zip(edges, pool.map(narrowed, range(bands)), strict=False):
        whole.paste(part, (0, top))
    return whole.resize(size, Image.Resampling.BICUBIC)


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The picture centred on the smallest square canvas; an odd pixel goes to the end.

    Raises:
        MediaError: a strip whose square would not fit into memory.
    """
    side = max(image.size)
    if side * side > _MOST_PADDED:
        raise MediaError(
            f"a picture of {image.width} x {image.height} px is {side} x {side} px when padded to a square; at most "
            f"{_MOST_PADDED} px are made: cut it or make it smaller, or use a policy without padding"
        )
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def square(
    image: Image.Image, plan: MediaPlan, colour: tuple[int, int, int], augment: random.Random | None = None
) -> Image.Image:
    """The only tile of a square plan; ``augment`` re-encodes the picture as JPEG before padding and resize."""
    if augment is not None:
        image = jpeg_augment(image, augment)
    if any(plan.padding):
        image = pad_to_square(image, colour)
    return image.resize(plan.resized, Image.Resampling.BICUBIC)
