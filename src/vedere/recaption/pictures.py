"""Picture sets: a folder of pictures, or the pictures of records in the InternVL form.

A picture is known by its path relative to the set's root, which is also what the finished records say; the order is that of
the names or of the records. A picture that several records show comes once, under the licences of all of them.

Cost: one directory walk, or one decoded line a record; no picture is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedere.data.formats import JsonlRecords, decode_json
from vedere.data.mixture import open_meta
from vedere.errors import RecordError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a set.

    Attributes:
        name: Path relative to the set's root, with forward slashes.
        licence: Licence; several joined by " AND "; "" if nobody says.
        attribution: Who has to be named; "" if nobody.
    """

    name: str
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Pictures below one folder.

    Attributes:
        root: The folder.
        pictures: In order, each name once.
        videos: Videos that the records name; they are left out.
    """

    root: Path
    pictures: tuple[Picture, ...]
    videos: int = 0


def open_pictures(source: Path, *, root: Path | None = None, licence: str = "") -> PictureSet:
    """The pictures of a folder, a jsonl file or a meta file.

    Args:
        source: A folder of pictures (searched in depth); a folder with ``meta.json``; a meta file; or an annotation file
            (``.jsonl``).
        root: Folder that the pictures of an annotation file are relative to; by default its own.
        licence: Of pictures for which no record names one.

    Raises:
        RecordError: nothing there, no picture in it, records that cannot be read, or tar shards.
    """
    if source.is_dir() and not (source / "meta.json").is_file():
        found = _of_folder(source, licence)
    elif source.suffix == ".jsonl":
        folder = root or source.parent
        found = _of_records([JsonlRecords(source, root=folder)], folder, licence)
    elif source.exists():
        sets = []
        for part in open_meta(source / "meta.json" if source.is_dir() else source):
            if not isinstance(part.records, JsonlRecords):
                raise RecordError(
                    f"{source}: data set '{part.name}' is tar shards, whose pictures have no paths; unpack them and give the "
                    "folder"
                )
            sets.append(part.records)
        found = _of_records(sets, Path(os.path.commonpath([os.path.abspath(part.root) for part in sets])), licence)
    else:
        raise RecordError(f"{source} does not exist; expected a folder of pictures, a .jsonl file or a meta file")
    if not found.pictures:
        raise RecordError(
            f"{source}: no pictures in it; expected records with 'image', or files that end in {', '.join(sorted(SUFFIXES))}"
        )
    return found


def _of_folder(folder: Path, licence: str) -> PictureSet:
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    return PictureSet(root=folder, pictures=tuple(Picture(name=name, licence=licence) for name in names))


def _of_records(sets: Sequence[JsonlRecords], root: Path, licence: str) -> PictureSet:
    licences: dict[str, dict[str, None]] = {}
    attributions: dict[str, dict[str, None]] = {}
    videos = 0
    for records in sets:
        for path, kind, own, attribution in _media(records):
            if kind == "video":
                videos += 1
                continue
            name = Path(os.path.relpath(path, root)).as_posix()
            licences.setdefault(name, {})[own or licence] = None
            attributions.setdefault(name, {})[attribution] = None
    pictures = tuple(
        Picture(
            name=name, licence=" AND ".join(filter(None, own)), attribution="; ".join(filter(None, attributions[name]))
        )
        for name, own in licences.items()
    )
    return PictureSet(root=root, pictures=pictures, videos=videos)


def _media(records: JsonlRecords) -> Iterator[tuple[str, str, str, str]]:
    """(path, kind, licence, attribution) of all media; attributions are no part of a sample and read from the line."""
    with records.path.open("rb") as file:
        lines = [line for line in file if not line.isspace()]
    for number, line in enumerate(lines):
        sample = records[number]
        raw = decode_json(line, sample.source)
        attribution = raw.get("attribution") if isinstance(raw, dict) else None
        for ref in sample.media:
            yield ref.path, ref.kind, sample.licence, attribution if isinstance(attribution, str) else ""
