"""Files of a benchmark to rows with their pictures: VLMEvalKit's tables, JSON, JSON lines, parquet, and MME's text files.

Official releases name a picture in many ways; all of them become `vedere.evals.items.Picture`s under one name. Rows keep the
names of fields that their file has; `vedere.evals.image_items` knows which benchmark calls what how.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vedere.errors import ConfigError, RecordError
from vedere.evals.items import Picture
from vedere.evals.mme import COGNITION, PERCEPTION
from vedere.evals.records import Row, read_rows
from vedere.evals.tables import PICTURES, inside, read_table

ENDINGS = (".tsv", ".jsonl", ".json", ".parquet")
_PATHS = ("image_path", "image", "images", "imagename", "imgname", "filename", "img_path", "data_id")
_WRAPPERS = ("data", "questions", "annotations")


def data_file(data: Path, stems: Sequence[str]) -> Path:
    """Returns the file of a benchmark: the one given, or the only one in a folder whose name begins with a stem.

    Args:
        data: File or folder.
        stems: Beginnings of names, in lower case.

    Raises:
        RecordError: no such file, or several; names them.
    """
    if data.is_file():
        return data
    if not data.is_dir():
        raise RecordError(f"{data} does not exist; expected the benchmark's file, or the folder that holds it")
    files = sorted(path for path in data.iterdir() if path.suffix.lower() in ENDINGS)
    fitting = [path for path in files if path.name.lower().startswith(tuple(stems))]
    if len(fitting) == 1:
        return fitting[0]
    named = ", ".join(path.name for path in (fitting or files)[:8]) or "no data files"
    if not fitting:
        raise RecordError(
            f"{data} holds {named}; expected a file whose name begins with {' or '.join(stems)} and ends in "
            f"{', '.join(ENDINGS)}: give the file itself"
        )
    raise RecordError(f"{data} holds {len(fitting)} files that fit ({named}); give the one that is meant")


def rows_of(path: Path) -> list[Row]:
    """Reads a file.

    Raises:
        RecordError: it cannot be read; with the line.
        ConfigError: a parquet file without the library for it.
    """
    ending = path.suffix.lower()
    if ending == ".tsv":
        return read_table(path)
    rows = list(_parquet(path)) if ending == ".parquet" else _unwrapped(read_rows(path))
    return [_with_pictures(path.parent, row) for row in rows]


def _unwrapped(rows: list[Row]) -> list[Row]:
    """Rows of a file that is one object around a list."""
    if len(rows) != 1:
        return rows
    for name in _WRAPPERS:
        inner = rows[0].data.get(name)
        if isinstance(inner, list) and inner and all(isinstance(one, dict) for one in inner):
            return [Row(number, one) for number, one in enumerate(inner, 1)]
    values = list(rows[0].data.items())  # MM-Vet's and MathVista's files: identifier -> question
    if values and all(isinstance(value, dict) for _, value in values):
        return [Row(number, {"id": name, **value}) for number, (name, value) in enumerate(values, 1)]
    return rows


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(
            "parquet files need the package pyarrow; install it with: pip install 'vedere[eval]'"
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path.name} is no parquet file ({str(error)[:120]})") from None
    for number, data in enumerate(table.to_pylist(), 1):
        yield Row(number, data)


def _with_pictures(folder: Path, row: Row) -> Row:
    """The row with its pictures in a list, and without their contents."""
    data = dict(row.data)
    pictures: list[Picture] = []
    for name in (*_PATHS, *(f"image_{number}" for number in range(1, 10))):
        value = data.get(name)
        for one in value if isinstance(value, list) else [value]:
            picture = _picture(folder, one, row)
            if picture is not None:
                pictures.append(picture)
                if not isinstance(one, str):
                    data.pop(name, None)
        if pictures and name in _PATHS:
            break
    if pictures:
        data[PICTURES] = pictures
    return Row(row.line, data)


def _picture(folder: Path, value: Any, row: Row) -> Picture | None:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return Picture(source=value["bytes"])
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, str) and value.strip():
        return Picture(source=inside(folder, value.strip(), row))
    return None


def mme_rows(folder: Path) -> list[Row]:
    """Reads MME's release: ``<category>.txt`` with lines picture, question, answer; pictures in ``<category>/``.

    Raises:
        RecordError: no such file, or a line without three fields.
    """
    rows: list[Row] = []
    for category in (*PERCEPTION, *COGNITION):
        file = folder / f"{category}.txt"
        if not file.is_file():
            continue
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if not line.strip():
                continue
            fields = line.rstrip("\n").split("\t")
            if len(fields) < 3:
                raise RecordError(
                    f"{file.name} line {number} has {len(fields)} fields between tabs; expected picture, question, answer"
                )
            data = {"category": category, "image": fields[0], "question": fields[1], "answer": fields[2]}
            row = Row(len(rows) + 1, data)
            places = [folder / category / fields[0], folder / category / "images" / fields[0]]
            there = next((place for place in places if place.exists()), inside(folder, fields[0], row))
            rows.append(Row(row.line, {**data, "index": f"{category}/{number}", PICTURES: [Picture(source=there)]}))
    if not rows:
        raise RecordError(
            f"{folder} holds neither MME's table nor a file such as existence.txt; give the folder of the release"
        )
    return rows


def listed(value: Any) -> list[str]:
    """Returns a list that a table holds as a text: JSON, or the text of a Python list; a text that is none is a list of one."""
    if isinstance(value, list):
        return [str(one) for one in value]
    text = str(value).strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            found = json.loads(text)
        except ValueError:
            found = _python_list(text)
        if isinstance(found, list):
            return [str(one) for one in found]
    return [text]


def _python_list(text: str) -> Any:
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
