"""How a native folder says that pictures become tiles, in the words of an original config.json (transformers 5.23).

``preprocessor_config.json``, or in folders that transformers 5 wrote the ``image_processor`` of ``processor_config.json``,
which goes before. Two traps: ``crop_to_patches`` is the image processor's alone, and `InternVLProcessor` switches it on
whatever the file says (the class, and files written from it, have it off), so pictures are cut unless there is but one tile
to cut them into. And what vedere does not do to pixels (another size, other statistics, no rescaling) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vedere.models.config_fields import Fields
from vedere.plan import MOST_TILES
from vedere.text.side_files import read_json
from vedere.vision.pixels import mean_std

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


def read_pixels(directory: Path | None, tile: int) -> dict[str, Any]:
    """Tiling of a native folder; empty where it has neither file.

    Args:
        directory: The folder, or None.
        tile: Side of the model's tiles in pixels.

    Raises:
        CheckpointError: a damaged file, or pixels that are made in another way than here.
    """
    fields = None if directory is None else _fields(directory)
    if fields is None:
        return {}
    for key in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        fields.only(key, [True, None], None)
    fields.only("resample", [3, "bicubic", None], None)
    size = fields.data.get("size")
    sides = list(size.values()) if isinstance(size, Mapping) else [size]
    if any(side not in (None, tile) for side in sides):
        raise fields.fail("size", f"tiles of {tile} px, the model's (vision_config.image_size)")
    for key, expected in zip(("image_mean", "image_std"), mean_std("imagenet"), strict=True):
        if fields.data.get(key) is not None and not _close(fields.numbers(key), expected):
            raise fields.fail(key, f"{list(expected)}, ImageNet's, as all of InternVL")
    if abs(fields.number("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise fields.fail("rescale_factor", "1 / 255")
    most = fields.size("max_patches", 12, MOST_TILES)
    cut = fields.only("crop_to_patches", [True, False, None], None) is not False or most > 1
    least = min(fields.size("min_patches", 1), most)
    return {"dynamic_image_size": cut, "min_dynamic_patch": least, "max_dynamic_patch": most}


def _fields(directory: Path) -> Fields | None:
    inner = read_json(directory / PROCESSOR).get("image_processor")
    if inner is not None:
        return Fields(inner, str(directory / PROCESSOR), "image_processor")
    path = directory / PREPROCESSOR
    return Fields(read_json(path), str(path), "") if path.is_file() else None


def _close(given: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    return len(given) == len(expected) and all(abs(a - b) < 1e-6 for a, b in zip(given, expected, strict=True))
