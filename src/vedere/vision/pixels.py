"""Picture files to RGB pixels, pixels to tower inputs.

Everything that makes two readers of one file disagree is settled here, once: EXIF orientation is applied, animations
give their first frame, 16-bit and float pictures are scaled to 8 bits (Pillow alone would clip them to white), and all
other modes become RGB by Pillow's own ``convert("RGB")``, as in the code that the published checkpoints were trained
with. That conversion drops alpha without blending; `open_image` blends only when a ``background`` is given.

The number of pixels is read from the header and compared with a limit before anything is decoded, and only formats with
a signature are tried, so that neither decompression bombs nor formats that start other programs (EPS) get through.
Fax pictures in TIFF are checked first (`vedere.vision.fax`).

Statistics are those of ImageNet (InternVL 1.5, arXiv 2404.16821, and successors), of CLIP (XComposer2-4KHD, 2404.06512),
and of CLIP as InternVL's code spells them: a digit short, 2e-5 off, which parity needs. Tiles stay 8-bit until
`normalise`, which runs where the model runs: a quarter of the memory and traffic.
"""

from __future__ import annotations

import contextlib
import io
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from vedere.errors import ConfigError, MediaError
from vedere.plan import HDPolicy, MediaPlan, SquarePolicy
from vedere.vision import tiling
from vedere.vision.fax import check_fax

if TYPE_CHECKING:
    import torch

ImageSource = str | Path | bytes | Image.Image | np.ndarray[Any, Any]
Statistics = Literal["imagenet", "clip", "clip-internvl"]

MAX_PIXELS = 89_478_485
"""Default limit on width x height: a quarter of a GiB as RGB, and the number at which Pillow itself starts to warn."""

MAX_BYTES = 1 << 30
"""Larger files are not opened as pictures."""

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI", "PCX")
_MEAN_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "clip-internvl": ((0.4814546, 0.4578275, 0.40821073), (0.2686295, 0.2613025, 0.2757711)),
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Opened:
    """A picture whose header is read; ``turn`` brings it upright."""

    image: Image.Image
    turn: Image.Transpose | None
    name: str


def describe(source: object) -> str:
    """A short name of a media source for messages: the path, or kind and size of an object in memory."""
    if isinstance(source, (str, Path)):
        text = str(source)
        return f"'{text if len(text) <= 200 else text[:197] + '...'}'"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"array {source.dtype}{list(source.shape)}"
    if isinstance(source, Image.Image):
        return f"PIL image {source.mode} {source.width} x {source.height}"
    return f"object of type {type(source).__name__}"


def reason(error: BaseException) -> str:
    """What an exception says, without the path that an OSError repeats."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def check_file(source: str | Path, limit: int | None = None) -> Path:
    """The path of a media file that exists and is not empty.

    Raises:
        MediaError: no such file, a directory or URL, an empty file, or one larger than ``limit`` bytes.
    """
    path, name = Path(source), describe(source)
    if isinstance(source, str) and source.split("://")[0] in ("http", "https", "ftp", "s3", "data"):
        raise MediaError(f"{name} is an address; expected a local file: download it first")
    try:
        if path.is_dir():
            raise MediaError(f"{name} is a directory; expected one media file")
        size = path.stat().st_size
    except FileNotFoundError:
        raise MediaError(f"{name} does not exist; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise MediaError(f"{name} cannot be opened ({reason(error)}); check the path and its permissions") from None
    if not path.is_file():
        raise MediaError(f"{name} is not a regular file; expected one media file")
    if size == 0:
        raise MediaError(f"{name} is empty (0 bytes); fetch or write it again")
    if limit is not None and size > limit:
        raise MediaError(f"{name} has {size} bytes; at most {limit} are opened as a picture: is it a video or archive?")
    return path


def _has_late_exif(stream: IO[bytes]) -> bool:
    """Whether a PNG has an eXIf chunk, which may stand after the pixels: hops over chunk headers, decodes nothing."""
    position = stream.tell()
    try:
        stream.seek(8)
        while len(header := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind in (b"eXIf", b"IEND"):
                return bool(kind == b"eXIf")
            stream.seek(length + 4, io.SEEK_CUR)
        return False
    finally:
        stream.seek(position)


def _turn(image: Image.Image, stream: IO[bytes] | None) -> Image.Transpose | None:
    """The transposition that the EXIF (or XMP) orientation asks for; unreadable metadata counts as none."""
    if image.format == "TIFF":
        return None  # Pillow turns these itself, and reports the upright size
    try:
        if image.format == "PNG" and stream is not None and "exif" not in image.info and not _has_late_exif(stream):
            exif = Image.Image.getexif(image)  # the PNG plugin's own method would decode the picture to look for eXIf
        else:
            exif = image.getexif()
        return _UPRIGHT.get(exif.get(_ORIENTATION, 1))
    except Exception:  # damaged metadata raises anything; the pixels may be fine
        return None


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise MediaError(f"{name} is {width} x {height} px; expected both sides >= 1")
    if width * height > max_pixels:
        raise MediaError(
            f"{name} is {width} x {height} = {width * height} px; at most {max_pixels} are decoded: "
            "make it smaller, or raise max_pixels if you trust it"
        )


@contextlib.contextmanager
def _open_stream(stream: IO[bytes], name: str, max_pixels: int) -> Iterator[_Opened]:
    Image.init()
    known = [format for format in _FORMATS if format in Image.OPEN]
    try:
        image = Image.open(stream, formats=known)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name}: {error}; at most {max_pixels} px are decoded: make it smaller") from None
    except UnidentifiedImageError:
        raise MediaError(
            f"{name} is not a picture that can be read; expected one of {', '.join(known)}, whole and undamaged"
        ) from None
    except Exception as error:  # damaged headers raise anything, from struct.error to RecursionError
        raise MediaError(f"{name} has a damaged header ({error}); write the picture again") from error
    with image:
        _check_pixels(*image.size, name, max_pixels)
        yield _Opened(image, _turn(image, stream), name)


@contextlib.contextmanager
def _opened(source: ImageSource, max_pixels: int) -> Iterator[_Opened]:
    """Opens any source but decodes nothing."""
    name = describe(source)
    if isinstance(source, (str, Path)):
        path = check_file(source, MAX_BYTES)
        try:
            stream = path.open("rb")
        except OSError as error:
            raise MediaError(f"{name} cannot be opened ({reason(error)}); check its permissions") from None
        with stream, _open_stream(stream, name, max_pixels) as opened:
            yield opened
    elif isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise MediaError("0 bytes given as a picture; expected the content of a picture file")
        with _open_stream(io.BytesIO(source), name, max_pixels) as opened:
            yield opened
    elif isinstance(source, Image.Image):
        _check_pixels(*source.size, name, max_pixels)
        yield _Opened(source, _turn(source, None), name)
    elif isinstance(source, np.ndarray):
        height, width = _array_sides(source, name)
        _check_pixels(width, height, name, max_pixels)
        yield _Opened(_from_array(source, name), None, name)
    else:
        raise MediaError(f"{name} given as a picture; expected a path, bytes, a PIL image or a numpy array [H, W, 3]")


def _array_sides(array: np.ndarray[Any, Any], name: str) -> tuple[int, int]:
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
        return array.shape[0], array.shape[1]
    hint = "; it looks channels-first: use array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] <= 4 else ""
    raise MediaError(f"{name} given as a picture; expected [H, W] or [H, W, C] with 1 to 4 channels{hint}")


def _eight_bit(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Brightness as uint8: 16 bits divided by 257, floats in 0..1 times 255, both rounded.

    Wider integers count as 8 bits if none is above 255, else as 16 bits.
    """
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind not in "uif":
        raise MediaError(f"{name} holds {array.dtype}; expected uint8, uint16, bool or float in 0..1")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if kind == "f" and low >= 0 and high <= 1:  # NaN fails every comparison
        return (array.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    if (kind == "u" and array.itemsize == 2) or (kind in "ui" and low >= 0 and 255 < high <= 65535):
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if kind in "ui" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    raise MediaError(
        f"{name} has values from {low:g} to {high:g}, whose brightness range is unknown; "
        "expected floats in 0..1 or integers in 0..65535: scale it to uint8"
    )


def _from_array(array: np.ndarray[Any, Any], name: str) -> Image.Image:
    pixels = np.ascontiguousarray(_eight_bit(array, name))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(pixels)  # [H, W] L, [H, W, 2] LA, 3 RGB, 4 RGBA


def _to_rgb(image: Image.Image, name: str, background: tuple[int, int, int] | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image)
        if image.mode != "F" and (image.mode != "I" or image.format in ("PNG", "PPM")):
            array = array.astype(np.uint16)  # also files of 16 bits that Pillow widens to 32
        image = Image.fromarray(_eight_bit(array, name))
    elif image.mode in ("RGBa", "La"):  # premultiplied alpha has no direct way to RGB
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # same colours as the direct way, which warns
    if background is not None and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over).convert("RGB")
    return image.convert("RGB")


def open_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] | None = None
) -> Image.Image:
    """Decodes a picture to upright RGB.

    Args:
        source: Path, content of a file, PIL image (not changed), or array [H, W] / [H, W, C] of uint8, uint16, bool, or
            floats in 0..1.
        max_pixels: Limit on width x height, checked from the header before decoding.
        background: Colour to blend transparent pixels with. None drops alpha, as the published models' code does.

    Returns:
        A new RGB image without metadata. Opening it again changes nothing.

    Raises:
        MediaError: a missing, empty, truncated, oversized or undecodable picture, or a source of the wrong kind.
    """
    with _opened(source, max_pixels) as opened:
        image = opened.image
        try:
            check_fax(image, opened.name)
            image.load()
            image = _to_rgb(image, opened.name, background)
            if opened.turn is not None:
                image = image.transpose(opened.turn)
        except MediaError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, EOFError, struct.error, zlib.error, ...
            raise MediaError(
                f"{opened.name} cannot be decoded ({error}); the file is truncated or damaged: fetch or write it again"
            ) from error
    if image is source:
        image = image.copy()
    image.info = {}  # a kept orientation tag would turn the picture a second time
    return image


def image_size(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The (width, height) of `open_image`'s result, from the header alone.

    Raises:
        MediaError: a missing, empty, oversized or unrecognised picture. Damage after the header stays unseen.
    """
    with _opened(source, max_pixels) as opened:
        width, height = opened.image.size
        sideways = opened.turn in (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])
        return (height, width) if sideways else (width, height)


def to_chw(image: Image.Image) -> np.ndarray[Any, Any]:
    """The pixels of an RGB image as uint8 [3, H, W]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def mean_colour(statistics: Statistics) -> tuple[int, int, int]:
    """The 8-bit colour of ``pad2square``: the integer part of 255 * mean."""
    red, green, blue = (int(255 * value) for value in mean_std(statistics)[0])
    return red, green, blue


def mean_std(statistics: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels in 0..1.

    Raises:
        ConfigError: no such statistics.
    """
    if statistics not in _MEAN_STD:
        raise ConfigError(f"unknown statistics '{statistics}'; expected one of {', '.join(_MEAN_STD)}")
    return _MEAN_STD[statistics]


def media_tiles(
    image: Image.Image | Sequence[Image.Image],
    plan: MediaPlan,
    *,
    augment: random.Random | None = None,
    statistics: Statistics = "imagenet",
) -> np.ndarray[Any, Any]:
    """The pixels of all tiles of a plan.

    Args:
        image: An RGB picture of the plan's size, or one picture for each frame of a video plan.
        plan: A plan of a `TilingPolicy` or `SquarePolicy`.
        augment: Random source of the JPEG augmentation, applied to each tile; frames are never augmented.
        statistics: Decides the padding colour of ``pad2square`` only.

    Returns:
        uint8 [N, 3, S, S] with N = len(plan.tiles), in token order, not normalised.

    Raises:
        MediaError: pictures whose number or size is not the plan's.
        ConfigError: an HD plan: its global view exists only after normalisation (`hd.hd_tiles`, `hd.tower_inputs`).
    """
    if isinstance(plan.policy, HDPolicy):
        raise ConfigError(
            "an HD plan has no 8-bit tiles, its global view is computed from normalised pixels; "
            "use hd_tiles(image, plan) and tower_inputs(tiles, [plan.grid], statistics)"
        )
    if plan.is_video and isinstance(image, Image.Image):
        image = [image]
    images = [image] if isinstance(image, Image.Image) else list(image)
    if len(images) != plan.frames:
        raise MediaError(f"{len(images)} pictures given for a plan of {plan.frames} frame(s); plan what was decoded")
    for picture in images:
        check_plan(picture, plan)
    if plan.is_video:
        pictures = [picture.resize(plan.resized, Image.Resampling.BICUBIC) for picture in images]
    elif isinstance(plan.policy, SquarePolicy):
        pictures = [tiling.square(images[0], plan, mean_colour(statistics), augment)]
    else:
        pictures = tiling.tiles(images[0], plan, augment)
    return np.stack([to_chw(picture) for picture in pictures])


def check_plan(image: Image.Image, plan: MediaPlan) -> None:
    """Makes sure that a plan was made for this picture.

    Raises:
        MediaError: another size than the plan's, or not RGB.
    """
    if image.size != (plan.width, plan.height):
        raise MediaError(
            f"the picture is {image.width} x {image.height} px but its plan was made for {plan.width} x {plan.height}; "
            "plan with the size after EXIF orientation (image_size)"
        )
    if image.mode != "RGB":
        raise MediaError(f"the picture has mode {image.mode}; expected RGB: open it with open_image")


def normalise(tiles: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    """8-bit pixels to tower inputs: x / 255, minus the mean, divided by the standard deviation, all in float32.

    Args:
        tiles: uint8 [..., 3, H, W].
        statistics: ``imagenet``, ``clip`` or ``clip-internvl``.

    Returns:
        float32 of the same shape, on the same device.

    Raises:
        ConfigError: another dtype or shape, or unknown statistics.
    """
    import torch  # half a second; planning and sizes do without

    mean, std = mean_std(statistics)
    if tiles.dtype != torch.uint8 or tiles.ndim < 3 or tiles.shape[-3] != 3:
        raise ConfigError(f"pixels given as {tiles.dtype} {list(tiles.shape)}; expected uint8 [..., 3, H, W]")
    mean_C11, std_C11 = torch.tensor((mean, std), dtype=torch.float32, device=tiles.device).view(2, 3, 1, 1)
    return tiles.to(torch.float32).div_(255).sub_(mean_C11).div_(std_C11)
