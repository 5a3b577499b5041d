"""Opening pictures of every kind, and refusing what is none."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.errors import MediaError
from vedere.vision import image_size, open_image

RAMP = np.arange(35, dtype=np.uint8).reshape(5, 7)


def colours(width: int = 7, height: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(source: object, **options: object) -> np.ndarray:
    image = open_image(source, **options)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:, :, None], 3, axis=2)


def test_all_ways_to_give_a_picture_agree(tmp_path: Path) -> None:
    array = colours()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(array)))
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(array), array):
        assert np.array_equal(pixels(source), array)
        assert image_size(source) == (7, 5)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_modes_become_rgb_as_pillow_converts_them(form: str, mode: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    try:
        content = encoded(image, form)
        Image.open(io.BytesIO(content)).load()
    except (OSError, ValueError):
        pytest.skip(f"Pillow does not write {mode} to {form}, or not readably")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(pixels(content), expected)


def test_transparency_is_dropped_or_blended() -> None:
    array = np.dstack([colours(), np.array([0, 255, 0, 255, 0, 255, 0] * 5, np.uint8).reshape(5, 7)])
    content = encoded(Image.fromarray(array))
    assert np.array_equal(pixels(content), array[:, :, :3])
    blended = pixels(content, background=(1, 2, 3))
    assert (blended[:, ::2] == (1, 2, 3)).all()
    assert np.array_equal(blended[:, 1::2], array[:, 1::2, :3])
    opaque = Image.fromarray(np.dstack([colours(), np.full((5, 7), 255, np.uint8)]))
    assert np.array_equal(pixels(opaque.convert("RGBa")), colours())  # premultiplied
    assert np.array_equal(pixels(opaque.convert("LA").convert("La")), pixels(opaque.convert("L")))


def test_palettes_with_transparency_do_not_warn() -> None:
    image = Image.fromarray(colours()).quantize(16)
    content = encoded(image, transparency=bytes(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pixels(content)
    assert np.array_equal(found, np.asarray(image.convert("RGB")))
    assert (pixels(content, background=(255, 255, 255)) >= found).all()


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    wide = np.linspace(0, 65535, 35).round().astype(np.uint16).reshape(5, 7)
    expected = grey(np.round(wide / 257).astype(np.uint8))
    for content in (encoded(Image.fromarray(wide)), encoded(Image.fromarray(wide), "TIFF")):
        assert np.array_equal(pixels(content), expected)
    assert np.array_equal(pixels(wide), expected)
    assert np.array_equal(pixels(wide.astype(">u2")), expected)
    assert np.array_equal(pixels(Image.frombytes("I;16B", (7, 5), wide.astype(">u2").tobytes())), expected)
    pgm = b"P5 7 5 65535\n" + wide.astype(">u2").tobytes()
    assert np.array_equal(pixels(pgm), expected)
    dark = b"P5 7 5 65535\n" + RAMP.astype(">u2").tobytes()
    assert np.array_equal(pixels(dark), np.zeros((5, 7, 3)))  # 34 of 65535 is black


def test_arrays_of_other_types_are_scaled() -> None:
    assert np.array_equal(pixels(RAMP), grey(RAMP))
    assert np.array_equal(pixels(RAMP[:, :, None]), grey(RAMP))
    assert np.array_equal(pixels(RAMP.astype(np.int64)), grey(RAMP))
    assert np.array_equal(pixels(RAMP / 255), grey(RAMP))
    assert np.array_equal(pixels((RAMP / 255).astype(np.float32)), grey(RAMP))
    assert np.array_equal(pixels(RAMP > 9), grey((RAMP > 9) * 255))
    assert np.array_equal(pixels(colours()[::-1, ::-1]), colours()[::-1, ::-1])
    assert np.array_equal(pixels(Image.fromarray((RAMP / 255).astype(np.float32))), grey(RAMP))


def test_cmyk_jpegs_keep_their_colours() -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")
    assert np.abs(pixels(encoded(image, "JPEG", quality=100)).astype(int) - (200, 30, 60)).max() <= 3


def fax(compression: str, **options: object) -> bytes:
    """A scanned page, 90 x 70: smooth, with some noise, black and white."""
    rows, columns = np.mgrid[0:70, 0:90]
    noise = np.random.default_rng(0).integers(0, 60, (70, 90))
    page = Image.fromarray(((columns * 3 + rows * 2 + noise) % 256).astype(np.uint8)).convert("1")
    return encoded(page, "TIFF", compression=compression, **options)


FAXES = ["group3", "group4", "tiff_ccitt"]


@pytest.mark.parametrize("compression", FAXES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_fax_pictures_are_what_pillow_reads(compression: str, orientation: int, tmp_path: Path) -> None:
    content = fax(compression)
    if orientation != 1:
        content = fax(compression, tiffinfo={0x0112: orientation, 278: 9}, software="a scanner")  # nine rows a strip
        assert len(Image.open(io.BytesIO(content)).tag_v2[273]) == 8  # type: ignore[attr-defined]
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert expected.shape[:2] == ((70, 90) if orientation == 1 else (90, 70))
    (tmp_path / "fax.tif").write_bytes(content)
    for source in (content, tmp_path / "fax.tif", Image.open(tmp_path / "fax.tif")):
        assert np.array_equal(pixels(source), expected)


@pytest.mark.parametrize("compression", FAXES)
def test_fax_pictures_whose_lines_break_off_are_refused(compression: str) -> None:
    """libtiff takes most of these as whole and fills their end with what was in memory."""
    content = fax(compression)
    tags = Image.open(io.BytesIO(content)).tag_v2  # type: ignore[attr-defined]
    (start,), (size,) = tags[273], tags[279]
    half = bytearray(content)
    half[start + size // 2 : start + size] = bytes(size - size // 2)
    with pytest.raises(MediaError, match=r"^\d+ bytes (is a fax picture whose lines are not whole|cannot be decoded)"):
        open_image(bytes(half))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(FAXES))
def test_a_damaged_fax_picture_has_the_same_pixels_every_time_or_none(seed: int, compression: str) -> None:
    rng = random.Random(seed)
    damaged = bytearray(fax(compression))
    for _ in range(rng.choice((1, 3, 9))):
        damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
    seen = set()
    for _ in range(3):
        dirt = [rng.randbytes(rng.randrange(100, 3000)) for _ in range(30)]  # what freed memory holds
        del dirt
        try:
            seen.add(open_image(bytes(damaged)).tobytes())
        except MediaError as error:
            seen.add(str(error))
    assert len(seen) == 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(form: str) -> None:
    shades = [Image.new("RGB", (6, 4), (shade,) * 3) for shade in (0, 128, 255)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(shades[0], form, save_all=True, append_images=shades[1:], **options)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 3
    assert not pixels(content).any()


def late_exif(content: bytes) -> bytes:
    """The same PNG with its eXIf chunk moved behind the pixels."""
    at = content.index(b"eXIf") - 4
    length = struct.unpack(">I", content[at : at + 4])[0] + 12
    chunk, rest = content[at : at + length], content[:at] + content[at + length :]
    return rest[:-12] + chunk + rest[-12:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "late"])
def test_exif_orientation_is_applied_once(orientation: int, form: str) -> None:
    array = colours()
    upright = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: array.transpose(1, 0, 2)[:, ::-1],
        7: array.transpose(1, 0, 2)[::-1, ::-1],
        8: array.transpose(1, 0, 2)[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if form == "AVIF" and "AVIF" not in Image.registered_extensions().values():
        pytest.skip("this Pillow has no AVIF")
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(Image.fromarray(array), "PNG" if form == "late" else form, exif=exif, **options)
    if form == "late":
        content = late_exif(content)
    image = open_image(content)
    assert image.size == upright.shape[1::-1] == image_size(content)
    if form not in ("JPEG", "AVIF"):  # lossy
        assert np.array_equal(np.asarray(image), upright)
    again = open_image(image)
    assert np.array_equal(np.asarray(again), np.asarray(image))
    from_pil = open_image(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(from_pil), np.asarray(image))


def test_damaged_exif_does_not_hide_the_picture() -> None:
    content = encoded(Image.fromarray(colours()), "PNG", exif=b"Exif\x00\x00nonsense")
    assert np.array_equal(pixels(content), colours())
    assert image_size(content) == (7, 5)


def test_the_given_image_is_not_changed() -> None:
    image = Image.fromarray(colours())
    image.info["comment"] = "kept"
    result = open_image(image)
    result.putpixel((0, 0), (9, 9, 9))
    assert np.array_equal(np.asarray(image), colours())
    assert image.info == {"comment": "kept"}
    assert result.info == {}


# ----------------------------------------------------------------------------------------------------------- bad input


def png_of(width: int, height: int) -> bytes:
    """A valid header that promises any size, followed by hardly any pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refused(source: object, message: str, **options: object) -> None:
    with pytest.raises(MediaError, match=message):
        open_image(source, **options)  # type: ignore[arg-type]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", r"none\.png' does not exist; check the path")
    refused(tmp_path, "is a directory; expected one media file")
    refused("a\0b", "cannot be opened .*null byte")
    refused("https://example.org/a.png", "is an address; expected a local file: download it first")
    refused("data:image/png;base64,AAAA", "does not exist")


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", r"empty\.jpg' is empty \(0 bytes\); fetch or write it again")
    refused(b"", "0 bytes given as a picture")


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture at all")
    refused(tmp_path / "a.png", r"a\.png' is not a picture that can be read; expected one of PNG, JPEG")
    refused(b"%PDF-1.7 and so on", "18 bytes is not a picture")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(eps)).format == "EPS"  # Pillow would start Ghostscript for it
    refused(eps, "is not a picture that can be read")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files(form: str, tmp_path: Path) -> None:
    content = encoded(Image.fromarray(colours(64, 48)), form)
    (tmp_path / "cut").write_bytes(content[: len(content) * 6 // 10])
    refused(tmp_path / "cut", r"cut' (cannot be decoded .* truncated or damaged|is not a picture|has a damaged header)")


def test_bombs_are_refused_from_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        refused(png_of(10_000, 10_000), "is 10000 x 10000 = 100000000 px; at most 89478485 are decoded")
    refused(png_of(60_000, 60_000), "exceeds limit .* at most 89478485 px are decoded: make it smaller")
    refused(png_of(101, 100), "101 x 100 = 10100 px; at most 10000 .* raise max_pixels", max_pixels=10_000)
    with pytest.raises(MediaError, match="at most 10000"):
        image_size(png_of(101, 100), max_pixels=10_000)
    assert image_size(png_of(4000, 3000)) == (4000, 3000)  # size without decoding


def test_the_limit_itself_is_allowed() -> None:
    content = encoded(Image.fromarray(colours(20, 10)))
    assert open_image(content, max_pixels=200).size == (20, 10)
    refused(content, "at most 199", max_pixels=199)
    refused(colours(20, 10), "at most 199", max_pixels=199)
    refused(Image.fromarray(colours(20, 10)), "PIL image RGB 20 x 10 is 20 x 10", max_pixels=199)


def test_arrays_that_are_no_pictures() -> None:
    refused(np.zeros((3, 40, 30), np.uint8), r"uint8\[3, 40, 30\].*channels-first: use array.transpose\(1, 2, 0\)")
    refused(np.zeros((2, 4, 5, 3), np.uint8), r"expected \[H, W\] or \[H, W, C\]")
    refused(np.zeros((0, 5, 3), np.uint8), "5 x 0 px; expected both sides >= 1")
    refused(np.full((2, 2), 3.5), "values from 3.5 to 3.5, whose brightness range is unknown; expected floats in 0..1")
    refused(np.full((2, 2), np.nan), "brightness range is unknown")
    refused(np.full((2, 2), -1), "values from -1 to -1")
    refused(np.full((2, 2), 1j), "holds complex128; expected uint8")


def test_other_objects_are_named() -> None:
    refused(3, "object of type int given as a picture; expected a path, bytes, a PIL image or a numpy array")
    refused(None, "object of type NoneType")


def test_long_names_are_shortened() -> None:
    with pytest.raises(MediaError) as caught:
        open_image("x" * 5000)
    assert len(str(caught.value)) < 400


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "QOI", "PCX"]))
def test_damaged_files_give_a_picture_or_a_media_error(seed: int, form: str) -> None:
    rng = random.Random(seed)
    content = bytearray(encoded(Image.fromarray(colours(16, 12)), form))
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content) if rng.random() < 0.5 else min(64, len(content)))] = rng.randrange(256)
    if rng.random() < 0.2:
        del content[rng.randrange(len(content)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        try:
            size = image_size(bytes(content), max_pixels=100_000)
            assert open_image(bytes(content), max_pixels=100_000).size == size
        except MediaError:
            pass
