"""The key-value part of a GGUF file, read without touching its tensors.

GGUF (github.com/ggml-org/ggml, docs/gguf.md) starts with metadata: little-endian keys, a type each, then the value.
The `gguf` package wraps every string of every array in array views, which takes seconds for a vocabulary of 49,152
tokens and as many merges; a chat must start faster than that. This reader walks the same bytes in about 0.1 s and
decodes only the keys that are asked for. Tensors are left to the `gguf` package.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class _Walker:
    """A position in the mapped file; every step checks that the file is long enough."""

    def __init__(self, data: mmap.mmap, version: int) -> None:
        self.data = data
        self.at = 8
        self.wide = version >= 2  # version 1 counts in 32 bits

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def count(self) -> int:
        return int(self.scalar("<Q" if self.wide else "<I"))

    def raw(self) -> bytes:
        length = self.count()
        end = self.at + length
        if end > len(self.data):
            raise struct.error(f"a string of {length} bytes at byte {self.at} runs past the end")
        value = self.data[self.at : end]
        self.at = end
        return value

    def strings(self, count: int, wanted: bool) -> list[str]:
        data, at, size = self.data, self.at, len(self.data)
        form, width = ("<Q", 8) if self.wide else ("<I", 4)
        found = []
        for _ in range(count):
            end = at + width + struct.unpack_from(form, data, at)[0]
            if end > size:
                raise struct.error(f"a string at byte {at} runs past the end")
            if wanted:
                found.append(data[at + width : end].decode("utf-8"))
            at = end
        self.at = at
        return found

    def value(self, kind: int, wanted: bool) -> Any:
        if kind == _STRING:
            raw = self.raw()
            return raw.decode("utf-8") if wanted else None
        if kind == _ARRAY:
            inner, count = self.scalar("<I"), self.count()
            if inner == _STRING:
                return self.strings(count, wanted)
            if inner == _ARRAY:
                return [self.value(inner, wanted) for _ in range(count)]
            if inner not in _SCALARS:
                raise struct.error(f"unknown value type {inner}")
            letter = _SCALARS[inner][1]
            size = count * struct.calcsize(f"<{letter}")
            if self.at + size > len(self.data):
                raise struct.error(f"an array of {count} values at byte {self.at} runs past the end")
            values = list(struct.unpack_from(f"<{count}{letter}", self.data, self.at)) if wanted else None
            self.at += size
            return values
        if kind not in _SCALARS:
            raise struct.error(f"unknown value type {kind}")
        return self.scalar(_SCALARS[kind])


def read_gguf_header(path: Path | str, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """Reads the metadata of a GGUF file.

    Args:
        path: The file.
        prefixes: Only keys that start with one of these are decoded; the rest is skipped.

    Returns:
        Key to value: numbers, strings, or lists of them.

    Raises:
        CheckpointError: the file is missing, is not GGUF, or ends inside the metadata.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8 or start[:4] != b"GGUF":
                raise CheckpointError(
                    f"{path} is not a GGUF file: it starts with {start[:4]!r}, expected b'GGUF'; check the path"
                )
            (version,) = struct.unpack("<I", start[4:])
            if version not in (1, 2, 3):
                raise CheckpointError(
                    f"{path} has GGUF version {version}; expected 1, 2 or 3, little-endian; convert the file again"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                walker = _Walker(data, version)
                walker.count()  # tensors
                found = {}
                for _ in range(walker.count()):
                    key = walker.raw().decode("utf-8")
                    wanted = key.startswith(prefixes)
                    value = walker.value(walker.scalar("<I"), wanted)
                    if wanted:
                        found[key] = value
                return found
    except FileNotFoundError:
        raise CheckpointError(f"no GGUF file at {path}; give the path of an existing .gguf file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a GGUF file: {error.strerror or error}") from None
    except (struct.error, UnicodeDecodeError, RecursionError, OverflowError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged inside its GGUF metadata: {error}; fetch it again"
        ) from None
