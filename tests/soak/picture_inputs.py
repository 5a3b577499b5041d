"""Pictures, damaged: what `vedere.vision.pixels` makes of them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, law
from mutations import damage, number_early, repair_png, splice
from PIL import Image

from vedere.errors import MediaError
from vedere.plan import Policy, SquarePolicy, TilingPolicy, plan_media
from vedere.vision.pixels import MAX_PIXELS, describe, image_size, media_tiles, normalise, open_image

ENDINGS = (".png", ".jpg", ".gif", ".webp", ".bmp", ".tif", ".ppm", ".avif", ".jp2", ".txt", ".eps", ".mp4", "")
POLICIES: tuple[Policy, ...] = (
    TilingPolicy(tile=28, patch=7, max_tiles=6),
    TilingPolicy(tile=28, patch=7, max_tiles=1, thumbnail=False),
    SquarePolicy(tile=28, patch=7),
    SquarePolicy(tile=28, patch=7, pad=True),
)


def _picture(mode: str, size: tuple[int, int] = (44, 31), seed: int = 0) -> Image.Image:
    """Smooth colours with some noise, in any mode."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width))
    red, green, blue = columns * 4 + noise, rows * 6, (columns + rows) * 2 + 20
    rgb = Image.fromarray(np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.float32) / 255)
    if mode in ("RGBA", "LA"):
        rgb.putalpha(Image.fromarray(np.clip(columns * 5, 0, 255).astype(np.uint8)))
    return rgb.convert(mode)


def _save(mode: str, format: str, frames: int = 1, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": [_picture(mode, seed=k) for k in range(1, frames)]}
    _picture(mode).save(buffer, format=format, **options)
    return buffer.getvalue()


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "words"
    return exif


def good_pictures() -> dict[str, bytes]:
    """A picture of each format and mode that differs for a decoder."""
    found = {f"png {mode}": _save(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")}
    found |= {
        "png transparent palette": _save("P", "PNG", transparency=bytes(range(0, 200, 2))),
        "png exif": _save("RGB", "PNG", exif=_turned(6)),
        "png animated": _save("RGB", "PNG", 3, duration=50),
        "jpeg": _save("RGB", "JPEG", quality=85),
        "jpeg progressive": _save("RGB", "JPEG", progressive=True, exif=_turned(8)),
        "jpeg grey": _save("L", "JPEG"),
        "jpeg cmyk": _save("CMYK", "JPEG"),
        "mpo": _save("RGB", "MPO", 2),
        "gif": _save("P", "GIF"),
        "gif animated": _save("P", "GIF", 3, duration=40, loop=0, transparency=3),
        "webp": _save("RGB", "WEBP", quality=70),
        "webp lossless": _save("RGBA", "WEBP", lossless=True, exif=_turned(3)),
        "webp animated": _save("RGB", "WEBP", 3, duration=40),
        "bmp": _save("RGB", "BMP"),
        "bmp palette": _save("P", "BMP"),
        "dib": _save("RGB", "DIB"),
        "tiff": _save("RGB", "TIFF"),
        "tiff lzw": _save("RGB", "TIFF", compression="tiff_lzw"),
        "tiff deflate": _save("L", "TIFF", compression="tiff_deflate", exif=_turned(5)),
        "tiff jpeg": _save("RGB", "TIFF", compression="jpeg"),
        "tiff group4": _save("1", "TIFF", compression="group4"),
        "tiff group3": _save("1", "TIFF", compression="group3"),
        "tiff 16 bits": _save("I;16", "TIFF"),
        "tiff float": _save("F", "TIFF"),
        "tiff cmyk": _save("CMYK", "TIFF"),
        "tiff pages": _save("RGB", "TIFF", 3),
        "ppm": _save("RGB", "PPM"),
        "pgm": _save("L", "PPM"),
        "avif": _save("RGB", "AVIF", quality=60, speed=10),
        "jpeg 2000": _save("RGB", "JPEG2000"),
        "qoi": _save("RGBA", "QOI"),
        "pcx": _save("RGB", "PCX"),
    }
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(rng: random.Random) -> bytes:
    """A tiny PNG that says it is huge, in pixels or in text."""
    side = rng.choice((9000, 9459, 9460, 20_000, 65_535, 1 << 20, (1 << 31) - 1))
    other = rng.choice((1, 100, side))
    header = struct.pack(">IIBBBBB", side, other, rng.choice((1, 8, 8, 16)), rng.choice((0, 2, 3, 6)), 0, 0, 0)
    body = zlib.compress(bytes(rng.choice((0, 1000, 1 << 20))), 9)
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(rng.choice((1, 1 << 22))), 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + text + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


class Pictures:
    """Files and bytes of pictures, and arrays."""

    def __init__(self) -> None:
        self.good = good_pictures()

    def case(self, rng: random.Random, folder: Path) -> Case:
        if rng.random() < 0.04:
            return self._array(rng)
        name = rng.choice(list(self.good))
        data, expect, what = self.good[name], "either", ""
        draw = rng.random()
        if draw < 0.04:
            expect, what = "works", "as it is"
        elif draw < 0.06:
            data, expect = rng.choice((b"", b"\0", b"hello\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>")), "refused"
            name, what = "no picture", "other content"
        elif draw < 0.10:
            data, name, what = bomb(rng), "png", "bomb"
        elif draw < 0.16:
            data, what = splice(data, self.good[rng.choice(list(self.good))], rng), "splice"
        elif draw < 0.30:
            data, what = number_early(data, rng), "number in header"
        else:
            data, what = damage(data, rng)
        if name.startswith("png") and rng.random() < 0.7:
            data = repair_png(data)
        path = folder / f"picture{rng.choice(ENDINGS)}"
        path.write_bytes(data)
        source: Any = path if rng.random() < 0.6 else str(path)
        names: tuple[str, ...] = (path.name,)
        if rng.random() < 0.3:
            source, names = data, (f"{len(data)} bytes",)
        most = MAX_PIXELS if rng.random() < 0.9 else rng.choice((1, 1000, 44 * 31))
        if most < 44 * 31:
            expect = "either"
        background = rng.choice((None, None, (255, 0, 9)))
        policy = rng.choice(POLICIES)
        same = data if rng.random() < 0.2 and most == MAX_PIXELS else None
        return Case(
            what=f"{name}: {what}",
            names=names,
            expect=expect,
            run=lambda: check_picture(source, most, background, policy, same),
        )

    def _array(self, rng: random.Random) -> Case:
        kinds = ("uint8", "uint16", "int32", "int64", "float32", "float64", "bool", "complex64", "<U3", "int8")
        kind = np.dtype(rng.choice(kinds))
        shape = rng.choice(((5, 7), (5, 7, 3), (5, 7, 4), (5, 7, 1), (5, 7, 2), (3, 5, 7), (0, 4), (4, 0, 3), (), (9,)))
        random_bytes = rng.randbytes(int(np.prod(shape, dtype=int)) * kind.itemsize)
        array = np.zeros(shape, kind)
        if kind.kind in "uif" and rng.random() < 0.7:
            array = np.frombuffer(random_bytes, kind).reshape(shape) if shape else array
        elif kind.kind == "f":
            array = np.asarray(array + 0.5)
        return Case(
            what="array",
            names=(f"array {array.dtype}{list(array.shape)}",),
            run=lambda: check_picture(array, MAX_PIXELS, None, POLICIES[0], None),
        )


def check_picture(
    source: Any, most: int, background: tuple[int, int, int] | None, policy: Policy, same: bytes | None
) -> None:
    """Opens a picture and follows its plan up to the model's door."""
    import torch

    image = open_image(source, max_pixels=most, background=background)
    law(image.mode == "RGB", f"mode {image.mode}")
    law(image.width * image.height <= most, f"{image.size} decoded, limit {most}")
    law(not image.info, "metadata left")
    size = image_size(source, max_pixels=most)
    law(size == image.size, f"image_size {size}, decoded {image.size}")
    if image.width * image.height > 4_000_000:
        return  # the rest is the same, only slower
    again = open_image(image)
    law(again is not image and again.tobytes() == image.tobytes(), "opening twice changes the picture")
    if same is not None:
        law(open_image(same, background=background).tobytes() == image.tobytes(), "bytes and file differ")
    plan = plan_media(*image.size, policy)
    try:
        tiles = media_tiles(image, plan)
    except MediaError as error:  # knows the picture only; callers put its place in front
        law(f"{image.width} x {image.height}" in str(error), f"no size in: {error}")
        raise MediaError(f"{describe(source)}: {error}") from None
    side = plan.tile_size
    law(tiles.dtype == np.uint8 and tiles.shape == (len(plan.tiles), 3, side, side), f"{tiles.dtype} {tiles.shape}")
    law(plan.tokens == len(plan.tiles) * 4, f"{plan.tokens} tokens for {len(plan.tiles)} tiles")
    pixels = normalise(torch.from_numpy(tiles), "imagenet")
    law(bool(torch.isfinite(pixels).all()) and float(pixels.abs().max()) < 3, "pixels out of range")


def make(folder: Path) -> Pictures:
    """The family; needs no files of its own."""
    return Pictures()
