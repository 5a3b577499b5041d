"""VLMEvalKit's tables: tab-separated, one row a question, pictures as base64 in cells, with the tricks that such files have.

``image`` holds base64 of an image file, several as the text of a Python list, or the index of another row whose picture it
shares (circular copies do this; cells shorter than 64 characters). ``image_path`` holds a path, or a list of paths, instead.
Cells are quoted as by ``csv``, so questions may have line breaks.

Pictures are not kept: a `Cell` knows where its row begins in the file and reads it again when its turn comes. The first pass
reads the whole file once; what is wrong with a row is said with its line and column.

Cost: memory of the texts alone; a picture costs one row's parsing.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vedere.errors import MediaError, RecordError
from vedere.evals.items import Picture
from vedere.evals.records import Row

REFERENCE = 64
"""Cells of ``image`` shorter than this are indices of other rows."""
PICTURES = "pictures"
"""Name under which a row holds its pictures, a list."""
FOLDERS = ("images", "png", "train_images", "val2014", "SEED-Bench-image", "infographicsvqa_images")
"""Folders of releases with their pictures."""
_LARGEST_CELL = 1 << 30
_LIST = re.compile(r"""['"]([^'"]*)['"]""")


class _Lines:
    """Lines of a file as ``csv`` wants them, with the number and place of the next one."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.file = open(path, "rb")  # noqa: SIM115  (closed by close)
        self.file.seek(start)
        self.place, self.number = start, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.place += len(line)
        self.number += 1
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RecordError(
                f"{self.path.name} line {self.number} is not UTF-8 (byte {error.start}); save the file as UTF-8"
            ) from None


@dataclass(frozen=True)
class Cell:
    """A picture in a table.

    Attributes:
        file: The table.
        offset: First byte of its row.
        column: Number of its column, from 0.
        part: Number in the cell's list.
        name: What messages call it.
    """

    file: Path
    offset: int
    column: int
    part: int
    name: str

    def read(self) -> bytes:
        """Returns the content of the image file.

        Raises:
            MediaError: the cell is no base64, or the table has changed.
        """
        lines = _Lines(self.file, self.offset)
        try:
            csv.field_size_limit(_LARGEST_CELL)
            cell = next(csv.reader(lines, delimiter="\t"))[self.column]
            return base64.b64decode(parts_of(cell)[self.part], validate=True)
        except (StopIteration, IndexError, csv.Error, RecordError):
            raise MediaError(f"{self.name} is not where it was; the file was changed: run again") from None
        except (ValueError, binascii.Error) as error:
            raise MediaError(f"{self.name} is no base64 ({error}); expected the content of an image file") from None
        finally:
            lines.file.close()


def parts_of(cell: str) -> list[str]:
    """Returns the texts of a cell that is the text of a list; a cell that is none is a list of one."""
    text = cell.strip()
    return _LIST.findall(text) if text.startswith("[") and text.endswith("]") else [text]


def read_table(path: Path) -> list[Row]:
    """Reads a table; each row has its pictures under `PICTURES`, and ``image`` is left out.

    Raises:
        RecordError: not readable, not UTF-8, no header, a row with another number of cells, a picture's reference to nowhere,
            or neither picture nor path in a row of a table with pictures.
    """
    csv.field_size_limit(_LARGEST_CELL)
    try:
        lines = _Lines(path)
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a table of the benchmark") from None
    try:
        return _rows(path, lines)
    except csv.Error as error:
        raise RecordError(f"{path.name} line {lines.number}: {error}; expected cells between tabs") from None
    finally:
        lines.file.close()


def _rows(path: Path, lines: _Lines) -> list[Row]:
    reader = csv.reader(lines, delimiter="\t")
    header = next(reader, [])
    if len(header) < 2 or len(set(header)) < len(header):
        raise RecordError(
            f"{path.name} begins with {', '.join(header)[:80] or 'nothing'}; expected the names of its columns, each once, "
            "between tabs"
        )
    names = [name if re.fullmatch("[A-Z]", name) else name.lower() for name in header]
    rows: list[Row] = []
    places: dict[str, list[Picture]] = {}
    shared: list[tuple[Row, dict[str, Any], str]] = []
    while True:
        offset, line = lines.place, lines.number + 1
        cells = next(reader, None)
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise RecordError(
                f"{path.name} line {line}: {len(cells)} cells where the header has {len(names)}; is the file cut off, or a tab "
                "or quotation mark in a cell not quoted?"
            )
        data: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=True) if cell != ""}
        image = data.pop("image", "")
        row = Row(line, data)
        index = str(data.get("index", line))
        if image and len(image) < REFERENCE and not image.startswith("["):
            shared.append((row, data, image))
        elif image:
            column = names.index("image")
            found = [
                Picture(source=Cell(path, offset, column, part, f"the picture of {path.name} line {line}"))
                for part in range(len(parts_of(image)))
            ]
            data[PICTURES] = places[index] = found
        elif "image_path" in data:
            data[PICTURES] = [Picture(source=inside(path.parent, one, row)) for one in parts_of(data["image_path"])]
        rows.append(row)
    for row, data, image in shared:
        if image not in places:
            raise row.fail(f"'image' is '{image}', but no row with this index has a picture", "base64 or such an index")
        data[PICTURES] = places[image]
    if not rows:
        raise RecordError(f"{path.name} has a header and no rows; is it cut off?")
    return rows


def inside(folder: Path, name: str, row: Row) -> Path:
    """Returns the path of a file that a row names, in the folder or in one of those that releases keep pictures in.

    Raises:
        RecordError: a path that leads out of the folder.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise row.fail(f"the path '{name}' leads out of the data's folder", "a path relative to it")
    places = [folder / path, *(folder / name / path for name in FOLDERS)]
    return next((place for place in places if place.exists()), places[0])


def checksums() -> Mapping[str, str]:
    """Returns file name -> MD5 of the published tables."""
    text = (resources.files("vedere.evals") / "checksums.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)["md5"]
    return found


def check_md5(path: Path, given: str = "") -> str:
    """Returns the MD5 of a data file, after comparing it with the one given, or the published one of this name.

    Raises:
        RecordError: it differs; says both.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a file of the benchmark") from None
    wanted = given.lower() or checksums().get(path.name, found)
    if found != wanted:
        whose = "was given" if given else "is published for this name"
        raise RecordError(
            f"{path.name} has the MD5 {found}, but {wanted} {whose}: it is another revision or damaged. Fetch it again, or say "
            f"that this file is meant: --md5 {found} (with inspect: -T md5={found})"
        )
    return found
