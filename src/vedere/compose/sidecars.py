"""What is known about a picture besides its pixels: captions, tags, and who has to be named.

Nearest first, and what one source leaves out the next may say:

1. the gallery's own list: ``captions`` or ``metadata`` as ``.jsonl``, ``.csv`` or ``.txt`` (file, tab, caption) beside the
   pictures, or the annotation file that was given;
2. a text file of the picture's name (``lake.txt`` for ``lake.jpg``), one caption a line;
3. what the file carries: EXIF, IPTC, and the texts of a PNG;
4. the file's name, where it has words.

Cost: the list is read once and kept, about half a kilobyte a picture; 2 and 3 are read with the picture.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image, IptcImagePlugin

from vedere.errors import RecordError

LISTS = tuple(f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("jsonl", "csv", "txt"))
_FILE = ("file", "file_name", "filename", "image", "path", "name")
_CAPTIONS = ("captions", "caption", "text", "description", "alt_text", "title")
_TAGS = ("tags", "keywords")
_ATTRIBUTION = ("attribution", "author", "photographer", "artist", "credit")
_LICENCE = ("licence", "license")
_SOURCE = ("source", "source_url", "url", "flickr_url")
KEYS = frozenset((*_CAPTIONS, *_TAGS, *_ATTRIBUTION, *_LICENCE, *_SOURCE, "conversations"))
_CAMERA = re.compile(r"(img|dsc[nf]?|dscf|pxl|mvimg|p|screenshot|image|photo|picture|scan)?[\d\s]*(edit|copy)?", re.I)
_LONGEST = 2000  # characters of a caption that are kept


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is known about one picture.

    Attributes:
        captions: What it shows, each a text of its own.
        tags: Keywords.
        attribution: Who has to be named.
        licence: Its licence.
        source: Where it came from.
    """

    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    attribution: str = ""
    licence: str = ""
    source: str = ""

    def or_else(self, other: Words) -> Words:
        """With the fields of another where these are empty."""
        mine = {field.name: getattr(self, field.name) or getattr(other, field.name) for field in fields(self)}
        return Words(**mine)

    @property
    def digest(self) -> str:
        """Changes when any of it changes."""
        return hashlib.sha256(json.dumps([getattr(self, f.name) for f in fields(self)]).encode()).hexdigest()[:16]

    @property
    def texts(self) -> tuple[str, ...]:
        """What the picture is searched by: each caption, and the tags together."""
        return (*self.captions, *([", ".join(self.tags)] if self.tags else []))


def find_list(folder: Path) -> Path | None:
    """The list of captions beside the pictures; None if there is none."""
    return next((folder / name for name in LISTS if (folder / name).is_file()), None)


def read_list(path: Path) -> dict[str, Words]:
    """The words of every picture of a list, by the name that the list gives.

    Args:
        path: ``.jsonl`` with an object a line (a file under one of `file`, `file_name`, `image`, `path`, `name`; captions as
            a text or a list; records in the InternVL form give their last answer), ``.csv`` with such columns, or ``.txt``
            with file and caption parted by a tab.

    Raises:
        RecordError: no such file, another kind, or a line that names no file.
    """
    kinds = {".jsonl": _json_lines, ".csv": _csv_rows, ".txt": _text_lines}
    if path.suffix.lower() not in kinds:
        raise RecordError(f"{path}: captions are read from {', '.join(kinds)}; write one of these")
    found: dict[str, Words] = {}
    try:
        for number, row in kinds[path.suffix.lower()](path):
            name = _first(row, _FILE)
            if not name:
                raise RecordError(
                    f"{path}, line {number}: names no file, only {', '.join(row) or 'nothing'}; expected {' or '.join(_FILE)}"
                )
            name = name[2:] if name.startswith("./") else name
            found[name] = _merged(found[name], words_of(row)) if name in found else words_of(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read ({error}); expected UTF-8 text") from None
    return found


def _merged(one: Words, other: Words) -> Words:
    """Two lines about one picture: captions and tags of both."""
    captions = tuple(dict.fromkeys((*one.captions, *other.captions)))
    tags = tuple(dict.fromkeys((*one.tags, *other.tags)))
    return Words(captions=captions, tags=tags).or_else(one).or_else(other)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RecordError(f"{path}, line {number}: no JSON ({error}); expected one object a line") from None
            if not isinstance(row, dict):
                raise RecordError(f"{path}, line {number}: a {type(row).__name__}; expected an object with a file")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {(key or "").strip().lower(): value or "" for key, value in row.items() if key}


def _text_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                name, _, caption = line.rstrip("\n").partition("\t")
                yield number, {"file": name.strip(), "caption": caption}


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, (str, int)) and str(value).strip():
            return str(value).strip()
    return ""


def _listed(row: Mapping[str, Any], names: tuple[str, ...], separator: str = "") -> tuple[str, ...]:
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            value = value.split(separator) if separator else [value]
        if isinstance(value, list):
            texts = [clean(text) for text in value if isinstance(text, str)]
            if any(texts):
                return tuple(dict.fromkeys(text for text in texts if text))
    return ()


def words_of(row: Mapping[str, Any]) -> Words:
    """What a row of a list or of a data set says, under the keys of `KEYS`."""
    captions = _listed(row, _CAPTIONS)
    turns = row.get("conversations")
    if not captions and isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        captions = _listed(turns[-1], ("value", "content"))
    separator = ";" if ";" in str(row.get("tags", row.get("keywords", ""))) else ","
    return Words(
        captions=captions,
        tags=_listed(row, _TAGS, separator),
        attribution=clean(_first(row, _ATTRIBUTION)),
        licence=clean(_first(row, _LICENCE)),
        source=clean(_first(row, _SOURCE)),
    )


def clean(text: str) -> str:
    """One line without control characters; an article's text and a credit's alike."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]


def beside(path: Path) -> Words:
    """The captions of a text file of the picture's name."""
    try:
        lines = path.with_suffix(".txt").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return Words()
    return Words(captions=tuple(filter(None, map(clean, lines))))


def inside(image: Image.Image) -> Words:
    """What an opened file carries; unreadable tags are passed over."""
    try:
        exif: Mapping[int, Any] = dict(image.getexif())
    except Exception:  # the tags are damaged, which the pixels need not be
        exif = {}
    try:
        iptc: Mapping[tuple[int, int], Any] = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]  # any image that was opened from a file
    except Exception:
        iptc = {}
    texts = {key.lower(): value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}

    def chosen(iptc_field: int, exif_tag: int, exif_windows: int, text: str) -> str:
        record = iptc.get((2, iptc_field))
        found = [_decoded(record), _decoded(exif.get(exif_tag)), _decoded(exif.get(exif_windows), "utf-16-le")]
        return next(filter(None, [*found, clean(texts.get(text, ""))]), "")

    records = iptc.get((2, 25), [])
    tags = [_decoded(record) for record in (records if isinstance(records, list) else [records])]
    tags = tags if any(tags) else [clean(tag) for tag in _decoded(exif.get(0x9C9E), "utf-16-le").split(";")]
    caption = chosen(120, 0x010E, 0x9C9C, "description") or chosen(5, 0, 0x9C9B, "title")
    return Words(
        captions=(caption,) if caption else (),
        tags=tuple(filter(None, tags)),
        attribution=chosen(80, 0x013B, 0x9C9D, "author") or chosen(110, 0, 0, ""),
        licence=chosen(116, 0x8298, 0, "copyright"),
    )


def _decoded(value: Any, coding: str = "utf-8") -> str:
    if isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        value = bytes(value)
    if isinstance(value, bytes):
        try:
            value = value.decode(coding)
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    return clean(value.rstrip("\0")) if isinstance(value, str) else ""


def of_name(name: str) -> Words:
    """A file's name as a caption, if it has words: not ``IMG_2041`` nor ``000000000285``."""
    words = re.sub(r"[-_.+\s]+", " ", Path(name).stem).strip()
    letters = re.sub(r"[^\w]|[\d_]", "", words)
    if _CAMERA.fullmatch(words) or len(letters) < 2 or re.fullmatch(r"[0-9a-f ]{8,}", words, re.I):
        return Words()
    return Words(captions=(clean(words),))
