"""Near-duplicates by a perceptual hash: the same photograph resized, recompressed, or slightly recoloured.

64 bits: the picture as 32 x 32 grey values, the lowest 8 x 8 of its cosine transform (DCT-II) without the constant, each
compared with their median. Few different bits mean the same picture. A picture with nearly nothing in it (one colour, a smooth
gradient) has no such hash, because noise would decide its bits.

Cost: 0.1 ms after shrinking the picture.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[np.float64]]

SAME = 6  # different bits up to which two pictures are the same one
_SIDE, _LOW = 32, 8
_FLAT = 2.0  # mean size of the coefficients, in grey values, below which there is nothing to compare


@cache
def _basis() -> Array:
    """Rows of the orthonormal DCT-II that are kept: [8, 32]."""
    angles = np.outer(np.arange(_LOW), np.arange(_SIDE) + 0.5) * math.pi / _SIDE
    rows: Array = np.cos(angles) * math.sqrt(2 / _SIDE)
    rows[0] /= math.sqrt(2)
    return rows


def perceptual_hash(image: Image.Image) -> int | None:
    """64 bits of a picture, None where it has nearly no structure.

    Args:
        image: Any mode.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0), np.float64)
    low = (_basis() @ grey @ _basis().T).ravel()[1:]
    if float(np.abs(low).mean()) < _FLAT:
        return None
    bits = low > np.median(low)
    return sum(1 << place for place, bit in enumerate(bits) if bit)


def different_bits(one: int | None, other: int | None) -> int:
    """Bits in which two hashes differ; 64 where one has none."""
    return 64 if one is None or other is None else (one ^ other).bit_count()
