"""The gallery's rows in LanceDB, an embedded vector database: files in a folder, no server.

One table an encoder, so that vectors of two encoders are never compared. A row is a picture: its file's size and time, its
words, its hash and one unit vector. Cosine similarity is the inner product. Up to `EXHAUSTIVE` rows a search looks at all of
them, which is exact; above, an inverted file (k-means cells, vectors kept whole) is built and the nearest cells are searched.

Cost: about 4 bytes a number of a vector on the disk, 8 with the inverted file. A search of 100,000 rows of 512 numbers one by
one takes about six times as long as their product with the query in numpy, in cells less than that
(`benchmarks/gallery_scale.py`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vedere.compose.sidecars import Words
from vedere.errors import ConfigError

Vectors = np.ndarray[Any, np.dtype[np.float32]]

EXHAUSTIVE = 100_000  # rows that a search looks at one by one
_CELLS_SEARCHED = 128
_VERSION = 1
_AT_ONCE = 500  # ids in one condition
_INVERTED = "vector_idx"
_TEXTS = ("id", "digest", "problem", "attribution", "licence", "source", "captions", "tags")
_NUMBERS = ("size", "time", "hash")
_COLUMNS = (*_TEXTS, *_NUMBERS)  # all but the vector, which an answer does not need


class Known(NamedTuple):  # not a dataclass, for there is one a picture at every update
    """What tells whether a picture has changed.

    Attributes:
        size: Bytes of the file.
        time: Nanoseconds of its last change.
        digest: Of the words that its list gives.
        problem: Why it cannot be used; "" if it can.
    """

    size: int
    time: int
    digest: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One picture of the index.

    Attributes:
        id: Path relative to the gallery.
        known: State of the file when it was indexed.
        words: Captions and credits.
        hash: `vedere.compose.fingerprints.perceptual_hash`.
        vector: [D], of length 1; all zero where there is nothing to search by.
        similarity: To the query, in an answer.
    """

    id: str
    known: Known
    words: Words
    hash: int | None
    vector: Vectors | None = None
    similarity: float = 0.0


def _lancedb() -> Any:
    try:
        return importlib.import_module("lancedb")
    except ModuleNotFoundError:
        raise ConfigError(
            "a gallery needs the package lancedb; install it with: pip install 'vedere[compose]'"
        ) from None


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join("'" + name.replace("'", "''") + "'" for name in ids)


class GalleryTable:
    """The rows of one gallery under one encoder.

    Args:
        folder: Folder of the database; it is made.
        encoder: Name of the encoder.
        dimension: Length of its vectors.

    Raises:
        ConfigError: lancedb is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, encoder: str, dimension: int) -> None:
        database = _lancedb()
        self.dimension = dimension
        name = re.sub(r"\W+", "-", encoder)[-40:].strip("-")
        mark = hashlib.sha256(f"{_VERSION} {encoder} {dimension}".encode()).hexdigest()[:8]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened = database.connect(str(folder), read_consistency_interval=timedelta(0))
            self._table: Any = opened.create_table(f"{name}-{mark}", schema=self._schema(), exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the index in {folder} cannot be opened ({error}); delete that folder, or choose another (--index)"
            ) from None

    def _schema(self) -> Any:
        arrow: Any = importlib.import_module("pyarrow")  # lancedb brings it
        columns = [(name, arrow.string()) for name in _TEXTS] + [(name, arrow.int64()) for name in _NUMBERS]
        return arrow.schema([*columns, ("vector", arrow.list_(arrow.float32(), self.dimension))])

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def known(self) -> dict[str, Known]:
        """State of every picture, by id."""
        columns = ["id", *Known._fields]
        data = self._table.search().select(columns).limit(max(len(self), 1)).to_arrow().to_pydict()
        states = map(Known._make, zip(*(data[name] for name in Known._fields), strict=True))
        return dict(zip(data["id"], states, strict=True))

    def put(self, rows: Sequence[Row], replaces: Collection[str]) -> None:
        """Adds rows; those whose id is in ``replaces`` take the place of an older one."""
        self.remove([row.id for row in rows if row.id in replaces])
        if rows:
            self._table.add([self._record(row) for row in rows])

    def remove(self, ids: Sequence[str]) -> None:
        """Forgets pictures."""
        for start in range(0, len(ids), _AT_ONCE):
            self._table.delete(f"id IN ({_quoted(ids[start : start + _AT_ONCE])})")

    def tidy(self, exhaustive: int = EXHAUSTIVE) -> bool:
        """Joins small files, forgets old versions, and builds the inverted file of a large table; whether there is one.

        New rows go into the cells that are there; the cells are made anew when half as many rows have come as there were.
        """
        before = self._table.index_stats(_INVERTED)
        self._table.optimize(cleanup_older_than=timedelta(minutes=10))  # another process may still read one
        rows = len(self)
        if rows <= exhaustive:
            return False
        if before is None or 2 * before.num_unindexed_rows > before.num_indexed_rows:
            cells = max(1, round(rows**0.5))
            kind: Any = importlib.import_module("lancedb.index")
            shape = kind.IvfFlat(distance_type="dot", num_partitions=cells)
            self._table.create_index("vector", config=shape, name=_INVERTED, replace=True)
        return True

    def nearest(self, vector: Vectors, count: int, exclude: Collection[str] = ()) -> list[Row]:
        """At most ``count`` usable rows by similarity to a unit vector, best first, ties in the order of ids.

        Rows that are not wanted are left out of what was found: a condition in the query costs more than the search.
        """
        without, asked = set(exclude), count + len(exclude)
        while len(self):
            query = self._table.search(vector, vector_column_name="vector").metric("dot").nprobes(_CELLS_SEARCHED)
            records = query.limit(asked).select([*_COLUMNS, "_distance"]).to_list()
            rows = [self._row(one) for one in records if not one["problem"] and one["id"] not in without]
            if len(rows) >= count or len(records) < asked:
                return sorted(rows, key=lambda row: (-row.similarity, row.id))[:count]
            asked *= 4
        return []

    def rows(self, ids: Collection[str]) -> list[Row]:
        """The rows of some pictures; ids that are not there are passed over."""
        if not ids:
            return []
        query = self._table.search().where(f"id IN ({_quoted(sorted(ids))})").limit(len(ids)).select(list(_COLUMNS))
        return [self._row(record) for record in query.to_list()]

    def _record(self, row: Row) -> dict[str, Any]:
        words = row.words
        signed = None if row.hash is None else int(np.uint64(row.hash).astype(np.int64))
        vector = np.zeros(self.dimension, np.float32) if row.vector is None else row.vector
        return {
            "id": row.id,
            "digest": row.known.digest,
            "problem": row.known.problem,
            "attribution": words.attribution,
            "licence": words.licence,
            "source": words.source,
            "captions": json.dumps(words.captions, ensure_ascii=False),
            "tags": json.dumps(words.tags, ensure_ascii=False),
            "size": row.known.size,
            "time": row.known.time,
            "hash": signed,
            "vector": vector,
        }

    @staticmethod
    def _row(record: Mapping[str, Any]) -> Row:
        signed = record["hash"]
        return Row(
            id=record["id"],
            known=Known(size=record["size"], time=record["time"], digest=record["digest"], problem=record["problem"]),
            words=Words(
                captions=tuple(json.loads(record["captions"])),
                tags=tuple(json.loads(record["tags"])),
                attribution=record["attribution"],
                licence=record["licence"],
                source=record["source"],
            ),
            hash=None if signed is None else int(signed) % (1 << 64),
            similarity=1.0 - float(record.get("_distance") or 0.0) if "_distance" in record else 0.0,
        )
