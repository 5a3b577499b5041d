"""Fax data in TIFF files (CCITT run lengths, Group 3, Group 4): whole, or refused.

libtiff, which Pillow decodes with, goes on after wrong codes, and takes a Group 4 strip that breaks off as whole: its rest is
whatever the memory held before, other pixels each time, and nothing reports it. FFmpeg's decoder of the same codes
(ITU-T T.4 and T.6) stops when it is told to be strict, so it reads the pieces before Pillow decodes them. It knows no
tiles, and being strict it refuses any tag that it does not use; hence the pieces, strips or tiles, are stacked as the
strips of a bare file in memory. Costs fax pictures twice the time, and the size of the file in memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import IO, Any

from PIL import Image

from vedere.errors import MediaError

_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_KEPT = (262, 266, 292, 293)  # polarity, bit order, options of Group 3 and of Group 4
_OFFSETS, _ROWS, _SIZES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_FAX = (2, 3, 4)
_LONG = 4  # TIFF's name of a 32-bit number
_SHARED = 1 << 20  # bytes that pieces may have in common; blank tiles do


def check_fax(image: Image.Image, name: str) -> None:
    """Makes sure that a fax picture in a TIFF has all its lines; does nothing about other pictures.

    Args:
        image: A picture that is not decoded yet.
        name: What messages call it.

    Raises:
        MediaError: a strip or tile that ends early, is damaged, or lies outside the file.
    """
    stream, tags = getattr(image, "fp", None), getattr(image, "tag_v2", {})
    if stream is None or tags.get(_COMPRESSION) not in _FAX:
        return
    place = stream.tell()
    try:
        bare, sides = _bare(stream, tags)
        whole = _decoded_size(bare, sides) == sides
    except (OSError, LookupError, ValueError, TypeError, OverflowError, struct.error):
        whole = False
    finally:
        stream.seek(place)
    if not whole:
        raise MediaError(
            f"{name} is a fax picture whose lines are not whole; it is damaged, or of an unusual kind: fetch it again, or "
            "write it as PNG"
        )


def _bare(stream: IO[bytes], tags: Mapping[int, Any]) -> tuple[bytes, tuple[int, int]]:
    """A TIFF of one column of strips that holds the pieces of another TIFF, and its (width, height)."""
    tiled = _TILE_OFFSETS in tags
    width, height = tags[_WIDTH], tags[_HEIGHT]
    wide = tags[_TILE_WIDTH] if tiled else width
    rows = tags[_TILE_HEIGHT] if tiled else min(tags.get(_ROWS, height), height)
    needed = -(-width // wide) * -(-height // rows) if wide > 0 < rows else 0
    offsets = tags[_TILE_OFFSETS if tiled else _OFFSETS][:needed]
    end = stream.seek(0, io.SEEK_END)
    sizes = tags.get(_TILE_SIZES if tiled else _SIZES, (end,) * needed)[:needed]
    if not needed or min(len(offsets), len(sizes)) < needed:
        raise ValueError(f"{min(len(offsets), len(sizes))} of {needed} pieces")
    pieces, total = list[bytes](), 0
    for offset, size in zip(offsets, sizes, strict=True):
        stream.seek(offset)
        pieces.append(stream.read(min(size, end)))
        total += len(pieces[-1])
        if total > end + _SHARED:  # a small file must not fill the memory
            raise ValueError("pieces that overlap")
    sides = (wide, rows * needed if tiled else height)
    numbers: dict[int, list[int]] = {_WIDTH: [wide], _HEIGHT: [sides[1]], _COMPRESSION: [tags[_COMPRESSION]]}
    numbers |= {tag: [int(tags[tag])] for tag in _KEPT if tag in tags}
    numbers |= {_OFFSETS: [], _ROWS: [rows], _SIZES: [len(piece) for piece in pieces]}
    at = 8
    for piece in pieces:
        numbers[_OFFSETS].append(at)
        at += len(piece)
    directory, lists = struct.pack("<H", len(numbers)), b""
    for tag, values in sorted(numbers.items()):
        field = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            field, lists = struct.pack("<I", at + len(lists)), lists + field
        directory += struct.pack("<HHI", tag, _LONG, len(values)) + field
    start = struct.pack("<2sHI", b"II", 42, at + len(lists))
    return b"".join((start, *pieces, lists, directory, bytes(4))), sides


def _decoded_size(bare: bytes, sides: tuple[int, int]) -> tuple[int, int] | None:
    """The size to which FFmpeg decodes a TIFF; None if it finds any error."""
    import av

    decoder = av.CodecContext.create("tiff", "r")
    most = (sides[0] + 64) * (sides[1] + 64)  # with what FFmpeg adds to align rows
    decoder.options = {"err_detect": "explode", "max_pixels": str(most)}
    decoder.thread_count = 1
    try:
        frames = decoder.decode(av.Packet(bare))
    except (av.error.FFmpegError, MemoryError):
        return None
    return (frames[0].width, frames[0].height) if frames else None
