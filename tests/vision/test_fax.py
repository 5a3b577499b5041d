"""Group 4 fax TIFFs: every whole one opens, and a damaged one gives the same pixels each time or none."""

import io
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vedere.errors import MediaError
from vedere.vision import open_image

SIZE = (64, 48)
TURNED = bytes.maketrans(bytes(range(256)), bytes(int(f"{value:08b}"[::-1], 2) for value in range(256)))


def drawn() -> Image.Image:
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return Image.fromarray(((columns * rows // 7 + columns // 5) % 3 == 0).astype(np.uint8) * 255).convert("1")


def saved(image: Image.Image, rows: int = 1000) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression="group4", tiffinfo={278: rows})
    return buffer.getvalue()


def code(image: Image.Image) -> bytes:
    """The Group 4 code of a picture, without a file around it."""
    data = saved(image)
    tags = Image.open(io.BytesIO(data)).tag_v2
    return data[tags[273][0] : tags[273][0] + tags[279][0]]


def tiff(pieces: list[bytes], tags: dict[int, int], offsets: int = 273, counts: int | None = 279) -> bytes:
    """A TIFF made by hand: tags of one number each, and lists of offsets and byte counts."""
    tags = {256: SIZE[0], 257: SIZE[1], 258: 1, 259: 4, 262: 1, 277: 1, **tags}
    lists = [tag for tag in (offsets, counts) if tag is not None]
    head = 8 + 2 + 12 * (len(tags) + len(lists)) + 4
    at, places = head + 4 * len(pieces) * len(lists), []
    for piece in pieces:
        places.append(at)
        at += len(piece)
    values = dict(zip(lists, (places, [len(piece) for piece in pieces]), strict=False))
    fields, body = [(tag, 1, value) for tag, value in tags.items()], b""
    for tag in lists:
        fields.append((tag, len(pieces), values[tag][0] if len(pieces) == 1 else head + len(body)))
        body += struct.pack(f"<{len(pieces)}I", *values[tag])
    directory = b"".join(struct.pack("<HHII", tag, 4, many, value) for tag, many, value in sorted(fields))
    start = struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + directory + bytes(4)
    return start + body + b"".join(pieces)


def whole() -> dict[str, tuple[bytes, Image.Image]]:
    image = drawn()
    tiles = [code(image.crop((x, y, x + 32, y + 16))) for y in (0, 16, 32) for x in (0, 32)]
    strip = code(image)
    return {
        "one strip": (saved(image), image),
        "many strips": (saved(image, 5), image),
        "tiles": (tiff(tiles, {322: 32, 323: 16}, 324, 325), image),
        "other fill order": (tiff([strip.translate(TURNED)], {266: 2}), image),
        "turned": (tiff([strip], {274: 6}), image.transpose(Image.Transpose.ROTATE_270)),
        "no rows per strip": (tiff([strip], {}), image),
        "no byte counts": (tiff([strip], {}, counts=None), image),
        "no end mark": (tiff([strip[:-3]], {}), image),
    }


@pytest.mark.parametrize("name", whole())
def test_whole_files_open(name: str) -> None:
    data, image = whole()[name]
    assert open_image(data).tobytes() == image.convert("RGB").tobytes()


def test_an_opened_picture_is_checked_and_stays_usable() -> None:
    data, image = whole()["many strips"]
    with Image.open(io.BytesIO(data)) as opened:
        assert open_image(opened).tobytes() == image.convert("RGB").tobytes()
        assert opened.tobytes() == image.tobytes()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_strip_or_tile_that_ends_early_is_refused(keep: float) -> None:
    strip = code(drawn())
    with pytest.raises(MediaError, match=r"is a fax picture whose lines are not whole; .* write it as PNG"):
        open_image(tiff([strip[: int(keep * len(strip))]], {}))
    tile = code(drawn().crop((0, 0, 32, 16)))
    with pytest.raises(MediaError, match="fax picture whose lines are not whole"):
        open_image(tiff([tile] * 5 + [tile[: int(keep * len(tile))]], {322: 32, 323: 16}, 324, 325))


def test_a_tile_that_is_not_there_is_refused() -> None:
    tile = code(drawn().crop((0, 0, 32, 16)))
    with pytest.raises(MediaError, match="fax picture whose lines are not whole"):
        open_image(tiff([tile] * 5, {322: 32, 323: 16}, 324, 325))


def test_strips_that_overlap_do_not_fill_the_memory() -> None:
    height = 20_000
    data = tiff([b"\xff" * 10] * height, {257: height, 278: 1})  # 0.36 MB
    tags = bytearray(data)
    sizes = 8 + 2 + 12 * 9 + 4 + 4 * height  # where the list of sizes begins
    tags[sizes : sizes + 4 * height] = struct.pack("<I", len(data)) * height  # 7 GB together
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match="fax picture whose lines are not whole"):
        open_image(bytes(tags))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


PIXELS = """
import hashlib, random, sys
from test_fax import whole
from mutations import damage
from vedere.errors import MediaError
from vedere.vision import open_image
for name, (data, _) in whole().items():
    for seed in range(60):
        try:
            print(name, seed, hashlib.sha1(open_image(damage(data, random.Random(seed))[0]).tobytes()).hexdigest())
        except MediaError:
            print(name, seed, "refused")
"""


def test_what_the_memory_held_before_does_not_show() -> None:
    seen = set()
    for filler in ("1", "170"):  # glibc fills new memory with this byte
        folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "soak")]
        paths = os.pathsep.join([*folders, *filter(None, sys.path)])
        environment = os.environ | {"MALLOC_PERTURB_": filler, "PYTHONPATH": paths}
        seen.add(
            subprocess.run([sys.executable, "-c", PIXELS], env=environment, capture_output=True, check=True).stdout
        )
    (shown,) = seen
    assert shown.count(b"\n") > shown.count(b"refused") > 100
