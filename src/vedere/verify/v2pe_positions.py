"""Folders of V2PE position ids and rotary tables (arXiv 2412.09616), without a model.

``index.json`` names layouts (an integer is that many text tokens, ``[t]`` one image of t tiles between its markers), deltas
and keys. Ids are checked for the layout that they claim to have. All tables are compared exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.positions import V2PE_DELTAS, rotary_table
from vedere.verify.assembly import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from vedere.verify.check import Check, Recording, failure, table
from vedere.verify.v2pe import positions_of

INDEX = "index.json"
_ROPE = re.compile(r"rope\.(cos|sin)(_bf16)?\.h(\d+)\.base(\d+)")
_LEFT_PAD = re.compile(r"(\w*left_pad\w*)\.position_ids")


def checks(directory: Path) -> Iterator[Check]:
    """Every entry of the index, every recorded table.

    Raises:
        CheckpointError: index or tensors cannot be read.
    """
    recording = Recording(directory)
    entries = _read_index(directory / INDEX)
    yield table(INDEX, list(_inconsistent(entries)), len(entries))
    layouts: set[str] = set()
    for entry in entries:
        ids_name = f"input_ids.n{entry['tokens_per_tile']}.l{entry['layout']}"
        if ids_name not in layouts:
            layouts.add(ids_name)
            yield from _layout_checks(recording, ids_name, entry)
        key = entry["key"]
        if key is None:  # the original failed on this combination: nothing recorded
            continue
        if key not in recording:
            yield failure(key, f"named by {INDEX}, but not recorded")
            continue
        delta = float(Fraction(entry["delta"]))
        yield recording.compare(key, partial(_positions, recording, ids_name, delta), "mismatches")
    for name in recording.tensors:
        if found := _LEFT_PAD.fullmatch(name):
            yield recording.compare(name, partial(_left_padded, recording, found[1]), "mismatches")
        elif found := _ROPE.fullmatch(name):
            yield recording.compare(name, partial(_rope, recording, found), "absolute")
    yield from recording.rest()


def _read_index(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise TypeError(f"a JSON {type(entries).__name__}")
        for entry in entries:
            _ = Fraction(entry["delta"]), entry["key"], entry["tokens_per_tile"], entry["layout"], entry["segments"]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path} is no index of position ids ({type(error).__name__}: {error}); expected a list of objects with "
            "tokens_per_tile, layout, segments, delta and key"
        ) from None
    return entries


def _inconsistent(entries: list[dict[str, Any]]) -> Iterator[str]:
    """What the index says twice and differently: tile counts, strides (delta times the tokens of a tile), layouts."""
    layouts: dict[Any, Any] = {}
    for entry in entries:
        expected = {
            "tiles": [sum(segment) for segment in entry["segments"] if isinstance(segment, list)],
            "rope_pos_id_stride": float(Fraction(entry["delta"])) * entry["tokens_per_tile"],
            "segments": layouts.setdefault((entry["tokens_per_tile"], entry["layout"]), entry["segments"]),
        }
        for name, value in expected.items():
            if entry.get(name, value) != value:
                yield f"{entry['key']}: {name} is {entry[name]}, the rest of the index says {value}"


def _layout_checks(recording: Recording, name: str, entry: dict[str, Any]) -> Iterator[Check]:
    """The ids have the markers and image positions of their segments; ``default`` counts 0, 1, 2, ..."""
    if name not in recording:
        yield failure(name, f"named by {INDEX}, but not recorded")
        return
    kinds: list[int] = []
    for segment in entry["segments"]:
        if isinstance(segment, list):
            kinds += [IMAGE_START, *[IMAGE_CONTEXT] * (sum(segment) * entry["tokens_per_tile"]), IMAGE_END]
        else:
            kinds += [0] * segment
    ids = recording.take(name)
    special = torch.where((ids == IMAGE_CONTEXT) | (ids == IMAGE_START) | (ids == IMAGE_END), ids, 0)
    wrong = [f"position {k}" for k, (a, b) in enumerate(zip(special.tolist(), kinds, strict=False)) if a != b]
    if len(ids) != len(kinds):
        wrong.append(f"{len(ids)} ids for a layout of {len(kinds)}")
    yield table(f"{name} (layout)", wrong, len(ids))
    default = f"{name.replace('input_ids', 'position_ids', 1)}.default"
    if default in recording:
        yield recording.compare(default, partial(_positions, recording, name, 1.0), "mismatches")


def _positions(recording: Recording, ids: str, delta: float) -> Tensor:
    return positions_of(recording.take(ids), delta)


def _left_padded(recording: Recording, prefix: str) -> Tensor:
    """Positions of a row with padding in front: counted from the first real token; padding reads 1.

    The delta stands in no file. It is the first step of an image, if that is one of the published deltas.
    """
    ids, mask = recording.take(f"{prefix}.input_ids"), recording.take(f"{prefix}.attention_mask").bool()
    recorded = recording.tensors[f"{prefix}.position_ids"]
    visual = (ids == IMAGE_CONTEXT).nonzero().flatten()
    step = float(recorded[visual[0]] - recorded[visual[0] - 1]) if len(visual) else 1.0
    delta = step if step in [float(known) for known in V2PE_DELTAS] else 1 / 16
    positions = torch.ones(len(ids))
    positions[mask] = positions_of(ids[mask], delta).float()
    return positions


def _rope(recording: Recording, found: re.Match[str]) -> Tensor:
    dtype = torch.bfloat16 if found[2] else torch.float32
    cos, sin = rotary_table(recording.take("rope.positions"), int(found[3]), float(found[4]), dtype)
    return cos if found[1] == "cos" else sin
