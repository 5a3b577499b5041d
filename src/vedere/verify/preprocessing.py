"""Folders of preprocessing results: tiling and HD size tables, pictures with the resulting tensors and PNGs.

Every size goes through `plan_media`, every picture through `vedere.vision`; nothing is recomputed here. The tables are of
InternVL's dynamic tiling (arXiv 2404.16821) and of XComposer2-4KHD (2404.06512) with its 2.5 variant (2407.03320).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.plan import HDPolicy, MediaPlan, SquarePolicy, TilingPolicy, plan_media
from vedere.verify.check import PIXELS, Check, Recording, failure, table
from vedere.vision.hd import hd_canvas, hd_image
from vedere.vision.pixels import Statistics, media_tiles, normalise, open_image

IMAGES, TILING, HD = "images.json", "internvl_tiling.json", "hd_transform.json"
_EVERY = re.compile(r"normalised_every_(\d+)(?:st|nd|rd|th)")
_HD_SIDES = {"hd": 336, "ixc25": 560}


def checks(directory: Path) -> Iterator[Check]:
    """The size tables, then every picture.

    Raises:
        CheckpointError: tables or tensors cannot be read.
    """
    recording = Recording(directory)
    if (directory / TILING).is_file():
        yield from _tiling_tables(_read(directory / TILING))
    if (directory / HD).is_file():
        yield from _hd_tables(_read(directory / HD))
    entries = _read(directory / IMAGES)
    yield _facts(directory, entries)
    for entry in entries:
        yield from _picture(directory, recording, entry)
    yield from recording.rest()


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{path} holds something else than a list of objects")
    return entries


def _exact(recorded: Any, computed: Any) -> bool:
    return json.dumps(recorded) == json.dumps(computed)  # (1, 2) and [1, 2] are the same size; 1 and True are not


def _wrong(where: str, recorded: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> list[str]:
    """Fields of one entry that differ, described; whatever ``compute`` raises is a difference too."""
    try:
        computed = compute()
    except Exception as error:  # a line for every table, whatever stands in it
        return [f"{where}: {type(error).__name__}: {error}"]
    return [
        f"{where}: {key} is {computed.get(key)}, recorded {value}"
        for key, value in recorded.items()
        if not _exact(value, computed.get(key))
    ]


# --- sizes -------------------------------------------------------------------------------------------------------------


def _policy(side: int, limit: int, thumbnail: bool = True, fewest: int = 1) -> TilingPolicy:
    # Tokens do not matter here, so one pixel a token: any side of a tile will do.
    return TilingPolicy(tile=side, patch=1, downsample=1, min_tiles=fewest, max_tiles=limit, thumbnail=thumbnail)


def _tiling_entry(width: int, height: int, side: int, limit: int, fewest: int) -> dict[str, Any]:
    with_thumbnail = plan_media(width, height, _policy(side, limit, True, fewest))
    without = plan_media(width, height, _policy(side, limit, False, fewest))
    return {
        "grid": without.grid,
        "tiles": len(without.tiles),
        "tiles_with_thumbnail": len(with_thumbnail.tiles),
    }


def _tiling_tables(entries: list[dict[str, Any]]) -> Iterator[Check]:
    """One line for each tile limit."""
    wrong: dict[str, list[str]] = {}
    count: dict[str, int] = {}
    for entry in entries:
        width, height, side, fewest = entry["width"], entry["height"], entry["image_size"], entry.get("min_num", 1)
        for limit, recorded in entry["results"].items():
            count[limit] = count.get(limit, 0) + 1
            wrong.setdefault(limit, []).extend(
                _wrong(
                    f"{width} x {height}",
                    recorded,
                    partial(_tiling_entry, width, height, side, int(limit), fewest),
                )
            )
    for limit in count or {"?": 0}:
        yield table(f"{TILING} max_num {limit}", wrong.get(limit, []), count.get(limit, 0))


def _hd_policy(family: str, side: int, limit: int) -> HDPolicy:
    if family == "ixc25":
        return HDPolicy(tile=side, patch=1, downsample=1, limit=limit, mode="identity", padding="end")
    return HDPolicy(tile=side, patch=1, downsample=1, limit=limit)


def _canvas(plan: MediaPlan) -> tuple[int, int]:
    left, top, right, bottom = plan.padding
    return plan.resized[0] + left + right, plan.resized[1] + top + bottom


def _hd_entry(width: int, height: int, policy: HDPolicy) -> dict[str, Any]:
    plan = plan_media(width, height, policy)
    return {
        "resized": plan.resized,
        "pad_left_top_right_bottom": plan.padding,
        "padded": _canvas(plan),
        "grid_wh": plan.grid,
    }


def _hd_tables(entries: list[dict[str, Any]]) -> Iterator[Check]:
    """One line for each family and limit; the family's name ends with the side of its sub-images."""
    wrong: dict[str, list[str]] = {}
    count: dict[str, int] = {}
    for entry in entries:
        width, height = entry["width"], entry["height"]
        for family, results in entry.items():
            if family in ("width", "height"):
                continue
            found = re.fullmatch(r"(hd|ixc25)_?(\d+)", family)
            if found is None:
                wrong.setdefault(family, []).append("not a known family; expected hd<side> or ixc25_<side>")
                count[family] = count.get(family, 0) + 1
                continue
            for limit, recorded in results.items():
                name = f"{family} hd_num {limit}"
                count[name] = count.get(name, 0) + 1
                policy = _hd_policy(found[1], int(found[2]), int(limit))
                wrong.setdefault(name, []).extend(
                    _wrong(
                        f"{width} x {height}",
                        recorded,
                        partial(_hd_entry, width, height, policy),
                    )
                )
    for name in count or {"?": 0}:
        yield table(f"{HD} {name}", wrong.get(name, []), count.get(name, 0))


# --- pictures ----------------------------------------------------------------------------------------------------------


def _statistics(entry: dict[str, Any]) -> Statistics:
    if entry["kind"] in _HD_SIDES:
        return "clip"
    return "clip-internvl" if str(entry.get("normalize", "")).startswith("clip") else "imagenet"


def _plan(entry: dict[str, Any], size: tuple[int, int]) -> MediaPlan:
    kind, side = entry["kind"], entry.get("image_size")
    if kind == "internvl":
        policy = _policy(side or 448, entry["max_num"], entry.get("use_thumbnail", True), entry.get("min_num", 1))
        return plan_media(*size, policy)
    if kind in ("pad2square", "direct_clip"):
        return plan_media(*size, SquarePolicy(tile=side or 448, patch=1, downsample=1, pad=kind == "pad2square"))
    if kind in _HD_SIDES:
        return plan_media(*size, _hd_policy(kind, side or _HD_SIDES[kind], entry["hd_num"]))
    raise CheckpointError(f"unknown kind of picture '{kind}'; expected internvl, pad2square, direct_clip, hd or ixc25")


def _facts(directory: Path, entries: list[dict[str, Any]]) -> Check:
    """Sizes, modes, tile counts and output sizes that the list itself states."""
    wrong: list[str] = []
    for entry in entries:
        facts = ("width", "height", "mode", "tiles", "out_size")
        recorded: dict[str, Any] = {key: entry[key] for key in facts if key in entry}
        wrong += _wrong(str(entry.get("file")), recorded, partial(_computed_facts, directory, entry))
    return table(IMAGES, wrong, len(entries))


def _computed_facts(directory: Path, entry: dict[str, Any]) -> dict[str, Any]:
    with Image.open(directory / entry["file"]) as stored:
        mode = stored.mode
    image = open_image(directory / entry["file"])
    plan = _plan(entry, image.size)
    return {
        "width": image.width,
        "height": image.height,
        "mode": mode,
        "tiles": len(plan.tiles),
        "out_size": _canvas(plan),
    }


def _picture(directory: Path, recording: Recording, entry: dict[str, Any]) -> Iterator[Check]:
    """All that is recorded of one picture."""
    try:
        image = open_image(directory / entry["file"])
        plan = _plan(entry, image.size)
        stem = Path(entry["file"]).stem
        statistics = _statistics(entry)
    except Exception as error:  # a line for every picture, whatever is wrong with it
        yield failure(str(entry.get("file")), f"{type(error).__name__}: {error}")
        return
    found = 0
    if f"{stem}.pixel_values" in recording:
        found += 1
        yield recording.compare(
            f"{stem}.pixel_values",
            lambda: normalise(torch.from_numpy(media_tiles(image, plan, statistics=statistics)), statistics),
            "absolute",
            PIXELS,
        )
    for name in recording.tensors:
        every = _EVERY.fullmatch(name.removeprefix(f"{stem}."))
        if every and name.startswith(f"{stem}."):
            found += 1
            step = int(every[1])
            yield recording.compare(name, partial(_thinned, image, plan, statistics, step), "absolute", PIXELS)
    if "result" in entry:
        found += 1
        yield _picture_check(directory / entry["result"], image, plan)
    if not found:
        yield failure(entry["file"], "the list names this picture, but no result of it is recorded")


def _thinned(image: Image.Image, plan: MediaPlan, statistics: Statistics, step: int) -> Tensor:
    return normalise(torch.from_numpy(hd_canvas(image, plan)), statistics)[:, ::step, ::step]


def _picture_check(path: Path, image: Image.Image, plan: MediaPlan) -> Check:
    """The 8-bit canvas of an HD plan against a PNG, exactly."""
    try:
        with Image.open(path) as stored:
            recorded = np.asarray(stored.convert("RGB"))
        computed = np.asarray(hd_image(image, plan))
    except Exception as error:  # a line for every picture, whatever is wrong with it
        return failure(path.name, f"{type(error).__name__}: {error}")
    if recorded.shape != computed.shape:
        return failure(path.name, f"computed {list(computed.shape)}", recorded.shape)
    unequal = int(np.count_nonzero(recorded != computed))
    return Check(name=path.name, shape=recorded.shape, measure="mismatches", error=unequal)
