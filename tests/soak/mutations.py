"""Damage: bytes and JSON values, changed a little, always the same way for the same random numbers."""

from __future__ import annotations

import copy
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, 2, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 100_000)


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 8))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + 1 + rng.randrange(min(64, len(data))) :]


def fill_range(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    size = min(len(data) - start, 1 + rng.randrange(128))
    return data[:start] + bytes([rng.choice((0, 255, 65))]) * size + data[start + size :]


def repeat_range(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    part = data[start : start + 1 + rng.randrange(64)]
    return data[:start] + part * rng.choice((2, 3, 50)) + data[start:]


def number_early(data: bytes, rng: random.Random) -> bytes:
    """An extreme number where headers are: sizes, counts, offsets."""
    size, form = rng.choice(((2, "H"), (4, "I")))
    at = rng.randrange(max(1, min(len(data) - size, rng.choice((32, 64, 256)))))
    number = struct.pack(rng.choice("<>") + form, rng.choice(NUMBERS) % (1 << (8 * size)))
    return data[:at] + number + data[at + size :]


def swap_ranges(data: bytes, rng: random.Random) -> bytes:
    middle = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[: middle[0]] + data[middle[1] : middle[2]] + data[middle[0] : middle[1]] + data[middle[2] :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_bits,
    set_bytes,
    truncate,
    cut_out,
    fill_range,
    repeat_range,
    number_early,
    number_early,
    swap_ranges,
)


def damage(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The data after one to three changes, and their names."""
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(BYTES)
        if len(data) > 8:
            data = change(data, rng)
            names.append(change.__name__)
    return data, names[0] if names else "as it is"


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def repair_png(data: bytes) -> bytes:
    """Right checksums for the chunks of a damaged PNG, so that decoders look at what is inside."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        out += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out) + data[at:]


DEEP = "@deep@"  # stands for thousands of nested lists, which only text can hold


def dump_json(value: Any) -> bytes:
    """JSON text of a damaged value."""
    return json.dumps(value).encode().replace(f'"{DEEP}"'.encode(), b"[" * 3000 + b"]" * 3000)


VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**31,
    2**63,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a",
    "\0",
    "a\0b",
    "\ud800",
    "\N{BYTE ORDER MARK}",
    "\N{ZERO WIDTH JOINER}\N{RIGHT-TO-LEFT OVERRIDE}",
    "<image>",
    "<image><image>",
    "<video>",
    "../../nothing",
    "/",
    ".",
    "*",
    "[",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    {"": {}},
    ["a.png", "a.png", "a.png"],
)


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [place for key, inner in value.items() for place in _nodes(inner, (*path, key))]
    elif isinstance(value, list):
        found += [place for index, inner in enumerate(value[:50]) for place in _nodes(inner, (*path, index))]
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def damage_json(value: Any, rng: random.Random) -> tuple[Any, str]:
    """A copy with one to two changes in it, and what was done: replace, remove, rename, repeat, exchange, wrap."""
    value = copy.deepcopy(value)
    done = ""
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = [path for path in _nodes(value) if path]
        if not places:
            return copy.deepcopy(rng.choice(VALUES)), "replace all"
        path = rng.choice(places)
        holder, key = _at(value, path[:-1]), path[-1]
        done = rng.choice(("replace", "replace", "replace", "number", "remove", "rename", "repeat", "exchange", "wrap"))
        if done == "replace":
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif done == "number":
            old = holder[key]
            near = [old * 2, old + 1, -old, old - 1, float(old), str(old), old // 2] if isinstance(old, int) else VALUES
            holder[key] = copy.deepcopy(rng.choice(list(near)))
        elif done == "remove":
            del holder[key]
        elif done == "rename" and isinstance(holder, dict):
            holder[rng.choice((f"{key}s", f"{key}"[:-1], f"{key}".upper(), "", "\0", "name"))] = holder.pop(key)
        elif done == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif done == "exchange":
            other = rng.choice(places)
            try:
                replacement = copy.deepcopy(_at(value, other))
            except (KeyError, IndexError, TypeError):
                replacement = None
            holder[key] = replacement
        else:
            holder[key] = [holder[key]] if rng.random() < 0.8 else DEEP
    return value, done
