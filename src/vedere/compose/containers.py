"""Pictures inside data sets: tar shards in webdataset's manner, and parquet files as `datasets` of Hugging Face writes them.

A *shard* holds records of files that share a name up to its first dot (`vedere.data.shards`): every picture of a record is a
picture here, and the ``.json`` and ``.txt`` beside it say what is known about it. A *parquet* file has a picture a row, as
bytes or as a struct with ``bytes`` and perhaps ``path``; the other columns are read as the keys of a list of captions
(`vedere.compose.sidecars`), whatever their case, and so are ``caption_0``, ``caption_1`` and so on.

What cannot be read is said and not raised, as for files of a folder: a damaged container is one unusable thing, a row without
a picture another one.

Cost: listing a shard takes one seek a member, a parquet file its footer. One picture of a parquet file costs its row group, in
parts of a few rows; of a shard, one seek after its listing, which is kept for the last few shards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from vedere.compose.sidecars import KEYS, Words, clean, words_of
from vedere.data.sample import MediaRef
from vedere.data.shards import IMAGE_SUFFIXES, index_shard
from vedere.errors import ConfigError, MediaError, RecordError

SUFFIXES = frozenset((".tar", ".parquet"))
_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "photo", "image_bytes", "bytes")
_NUMBERED = re.compile(r"captions?_?\d{1,2}")
_ROWS = 32  # of a parquet file in memory at once
_LARGEST_TEXT = 1 << 20  # bytes of a .json or .txt that are read


@dataclass(frozen=True, kw_only=True)
class Member:
    """One picture of a container.

    Attributes:
        name: Of the file in a shard; the number of the row in a parquet file, from 0.
        picture: The encoded bytes.
        words: What the container says about it.
        title: A name that may have words.
        problem: Why there is no picture.
    """

    name: str
    picture: bytes = b""
    words: Words = field(default_factory=Words)
    title: str = ""
    problem: str = ""


def member_names(path: Path) -> list[str]:
    """Names of the pictures of a container, in its order; nothing is decoded.

    Raises:
        RecordError: it cannot be read, or has no pictures.
        ConfigError: a parquet file, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".tar":
        found = [name for record in _shard(path) for name, _ in _pictures(record)]
        if not found:
            raise RecordError(f"no pictures in it; expected members that end in {', '.join(IMAGE_SUFFIXES)}")
        return found
    with _parquet(path) as file:
        _column(file.schema_arrow)
        if not file.metadata.num_rows:
            raise RecordError("no rows in it")
        return [str(row) for row in range(file.metadata.num_rows)]


def members(path: Path, names: Sequence[str]) -> Iterator[Member]:
    """Some pictures of a container, one after the other.

    Args:
        path: The container.
        names: As `member_names` gives them, in the same order.

    Raises:
        RecordError: the container cannot be read at all.
        ConfigError: as `member_names`.
    """
    return _of_shard(path, names) if path.suffix.lower() == ".tar" else _of_parquet(path, names)


_Record = dict[str, MediaRef]  # by the part of the name behind the key


def _shard(path: Path) -> list[_Record]:
    try:
        state = path.stat()
    except OSError as error:
        raise RecordError(f"{path}: the shard cannot be read ({error.strerror})") from None
    return _indexed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _indexed(path: Path, size: int, time: int) -> list[_Record]:
    """Records of a shard in the state that ``size`` and ``time`` tell."""
    return [
        {
            suffix: MediaRef(kind="image", path=str(path), member=name, offset=offset, size=length)
            for suffix, name, offset, length in parts
        }
        for _, parts in index_shard(path)
    ]


def _pictures(record: _Record) -> list[tuple[str, MediaRef]]:
    return [(ref.member, ref) for suffix, ref in record.items() if suffix.rpartition(".")[2] in IMAGE_SUFFIXES]


def _of_shard(path: Path, names: Sequence[str]) -> Iterator[Member]:
    wanted = set(names)
    for record in _shard(path):
        chosen = [(name, ref) for name, ref in _pictures(record) if name in wanted]
        words = _beside(record) if chosen else Words()
        for name, ref in chosen:
            try:
                yield Member(name=name, picture=ref.read(), words=words, title=name)
            except MediaError as error:
                yield Member(name=name, problem=str(error))


def _beside(record: _Record) -> Words:
    """The texts of a record; what cannot be read is passed over, as a picture needs none."""
    texts = {
        suffix: ref.read() for suffix, ref in record.items() if suffix in ("json", "txt") and ref.size < _LARGEST_TEXT
    }
    words = Words()
    try:
        row = json.loads(texts.get("json", b"null"))
        words = words_of(_lowered(row)) if isinstance(row, dict) else words
    except (ValueError, RecursionError):
        pass
    lines = texts.get("txt", b"").decode("utf-8-sig", "replace").splitlines()
    return words.or_else(Words(captions=tuple(filter(None, map(clean, lines)))))


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path.name}: parquet needs pyarrow; install it with: pip install 'vedere[compose]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"no parquet file that can be read ({str(error)[:120]}); fetch it again") from None


def _column(schema: Any) -> str:
    """The column that holds a picture a row."""
    fits = {}
    for column in schema:
        nested = str(column.type).startswith("struct<")
        children = [column.type.field(place) for place in range(column.type.num_fields)] if nested else [column]
        kinds = [str(child.type) for child in children if child.name == "bytes" or not nested]
        if kinds in (["binary"], ["large_binary"]):
            fits[column.name] = nested
    named = [name for wanted in _COLUMNS for name in fits if name.lower() == wanted]
    only = [name for name, nested in fits.items() if nested]
    if named or len(only) == 1:
        return str([*named, *only][0])
    raise RecordError(
        f"no column with one picture a row (columns: {', '.join(schema.names)}); expected bytes, or a struct with bytes, under "
        f"{' or '.join(_COLUMNS[:3])}"
    )


def _of_parquet(path: Path, names: Sequence[str]) -> Iterator[Member]:
    with _parquet(path) as file:
        column = _column(file.schema_arrow)
        known = [name for name in file.schema_arrow.names if name.lower() in KEYS or _NUMBERED.fullmatch(name.lower())]
        columns = [column, *(name for name in known if name != column)]
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        starts = [sum(sizes[:group]) for group in range(len(sizes))]
        rows = sorted(int(name) for name in names if name.isdecimal() and int(name) < sum(sizes))
        for group, chosen in groupby(rows, lambda row: max(g for g, start in enumerate(starts) if start <= row)):
            yield from _of_group(file, group, starts[group], list(chosen), columns)


def _of_group(file: Any, group: int, start: int, rows: Sequence[int], columns: Sequence[str]) -> Iterator[Member]:
    left, place = list(rows), start
    try:
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=columns):
            while left and left[0] < place + len(batch):
                (row,) = batch.slice(left[0] - place, 1).to_pylist()
                yield _member(str(left.pop(0)), row, columns[0])
            place += len(batch)
            if not left:
                return
    except (OSError, ValueError) as error:
        for row in left:
            yield Member(name=str(row), problem=f"its part of the file is damaged ({str(error)[:120]})")


def _member(name: str, row: Mapping[str, Any], column: str) -> Member:
    value = row[column]
    inner = value if isinstance(value, dict) else {"bytes": value}
    path = inner.get("path")
    title = path if isinstance(path, str) else ""
    rest = _lowered({key: given for key, given in row.items() if key != column})
    numbered = [rest[key] for key in sorted(rest) if _NUMBERED.fullmatch(key) and isinstance(rest[key], str)]
    words = words_of(rest).or_else(Words(captions=tuple(filter(None, map(clean, numbered)))))
    if not isinstance(inner.get("bytes"), bytes) or not inner["bytes"]:
        named = f", only the path '{title[:80]}': the data set was saved without its files" if title else ""
        return Member(name=name, words=words, problem=f"the row holds no picture{named}")
    return Member(name=name, picture=inner["bytes"], words=words, title=title)


def _lowered(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): value for key, value in row.items()}
