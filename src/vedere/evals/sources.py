"""Files of a benchmark to rows with their pictures: VLMEvalKit's tables, JSON, JSON lines, parquet, releases in several files.

Official releases name a picture in many ways; all of them become `vedere.evals.items.Picture`s under one name. Rows keep the
names of fields that their file has; `vedere.evals.image_items` knows which benchmark calls what how. Some releases are several
files (POPE's samplings, ChartQA's halves, a folder for each subject of MMMU, parquet in pieces): these are read together, and
what only a file's name tells then becomes a field of its rows (`TOLD`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vedere.errors import ConfigError, RecordError
from vedere.evals.items import Picture
from vedere.evals.mme import COGNITION, PERCEPTION
from vedere.evals.records import Row, read_rows
from vedere.evals.tables import PICTURES, inside, read_table

ENDINGS = (".tsv", ".jsonl", ".json", ".parquet")
_PATHS = (
    *("image_path", "image", "images", "imagename", "imgname", "filename", "img_path", "data_id"),
    *("image_local_name", "image_list"),
)
_PIECE = re.compile(r"(.*)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet")
_WRAPPERS = ("data", "questions", "annotations")


def _by_name(pattern: str, field: str) -> Callable[[Path], dict[str, str]]:
    def told(path: Path) -> dict[str, str]:
        found = re.match(pattern, path.name)
        return {field: found[1]} if found else {}

    return told


def _blink(path: Path) -> dict[str, str]:
    piece = _PIECE.fullmatch(path.name)
    return {"split": piece[1], "task": path.parent.name} if piece else {}


def _mmmu_pro(path: Path) -> dict[str, str]:
    found = re.fullmatch(r"(vision|standard)(?: \((\d+) options\))?", path.parent.name)
    return {"setting": "-".join(filter(None, found.groups()))} if found else {}


TOLD: dict[str, Callable[[Path], dict[str, str]]] = {
    "pope": _by_name(r"coco_pope_([a-z]+)\.", "split"),
    "chartqa": _by_name(r"test_(human|augmented)\.", "split"),
    "refcoco": _by_name(r"(refcoco[+g]?_\w+)\.", "split"),
    "mmmu": _by_name(r"(dev|validation|test)-\d{5}-of-", "split"),
    "mmmu-pro": _mmmu_pro,
    "blink": _blink,
}
"""Benchmark that is released in several files -> what a file's name and folder tell of its rows."""


def data_files(data: Path, stems: Sequence[str], several: bool = False) -> list[Path]:
    """Returns the files of a benchmark: the one given, or those in a folder whose names begin with a stem.

    Args:
        data: File or folder.
        stems: Beginnings of names, in lower case.
        several: The benchmark is released in several files, in the folder or in folders of it.

    Returns:
        One file; or the pieces of one parquet file; or all that fit, where ``several`` are expected.

    Raises:
        RecordError: no such file, or several where one is expected; names them.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise RecordError(f"{data} does not exist; expected the benchmark's file, or the folder that holds it")
    files = _files(data)
    fitting = _fitting(files, stems)
    if not fitting and several:
        fitting = [
            path for folder in sorted(data.iterdir()) if folder.is_dir() for path in _fitting(_files(folder), stems)
        ]
    found = fitting or files
    if len(fitting) == 1 or (several and fitting and len({path.suffix for path in fitting}) == 1) or _pieces(found):
        return found
    named = ", ".join(path.name for path in found[:8]) or "no data files"
    if not fitting:
        raise RecordError(
            f"{data} holds {named}; expected a file whose name begins with {' or '.join(stems)} and ends in "
            f"{', '.join(ENDINGS)}: give the file itself"
        )
    raise RecordError(f"{data} holds {len(fitting)} files that fit ({named}); give the one that is meant")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def _fitting(files: Sequence[Path], stems: Sequence[str]) -> list[Path]:
    return [path for path in files if path.name.lower().startswith(tuple(stems))]


def _pieces(files: Sequence[Path]) -> bool:
    """Whether files are the pieces of one."""
    found = [_PIECE.fullmatch(path.name) for path in files]
    return bool(found) and all(found) and len({one[1] for one in found if one}) == 1


def rows_of(path: Path, told: Mapping[str, str] | None = None) -> list[Row]:
    """Reads a file.

    Args:
        path: The file.
        told: Fields for rows that do not have them.

    Raises:
        RecordError: it cannot be read; with the line.
        ConfigError: a parquet file without the library for it.
    """
    ending = path.suffix.lower()
    if ending == ".tsv":
        return [Row(row.line, {**(told or {}), **row.data}) for row in read_table(path)]
    rows = list(_parquet(path)) if ending == ".parquet" else _unwrapped(read_rows(path))
    return [_with_pictures(path.parent, Row(row.line, {**(told or {}), **row.data})) for row in rows]


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
    if not pictures and isinstance(data.get("image_id"), str):  # TextVQA's
        pictures.append(Picture(source=inside(folder, f"{data['image_id']}.jpg", row)))
    if pictures:
        data[PICTURES] = pictures
    return Row(row.line, data)


def _picture(folder: Path, value: Any, row: Row) -> Picture | None:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return Picture(source=value["bytes"])
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, str) and value.strip():
        name = value.strip()
        own = Path(str(row.data.get("split", "")), str(row.data.get("id", "")), name)  # ScienceQA's test/12/image.png
        return Picture(source=inside(folder, str(own) if name == "image.png" else name, row))
    return None


def llava_rows(folder: Path) -> list[Row]:
    """Reads the release of LLaVA-Bench in the wild: questions, the references of GPT-4, and descriptions of the pictures.

    Raises:
        RecordError: a file is missing, or has no answer to a question.
    """
    questions, answers, context = (folder / name for name in ("questions.jsonl", "answers_gpt4.jsonl", "context.jsonl"))
    references = {row.text("question_id"): row.text("text") for row in read_rows(answers)}
    captions = {row.text("image"): row.text("caption") for row in read_rows(context)}
    rows = []
    for row in rows_of(questions):
        number, image = row.text("question_id"), row.text("image")
        if number not in references or image not in captions:
            raise row.fail(
                f"{answers.name} or {context.name} has nothing for question {number} about {image}",
                "the release's three files",
            )
        rows.append(Row(row.line, {**row.data, "gpt_answer": references[number], "caption": captions[image]}))
    return rows


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
