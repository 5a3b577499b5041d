"""Where a gallery's pictures lie: files of a folder, files that a list names, and pictures inside data sets.

The pool that the paper ranks (arXiv 2309.15112, sec. 3.3) is whatever lies below a folder here: picture files, and tar shards
and parquet files (`vedere.compose.containers`), which count as folders of their pictures: ``train-000.tar/a/b.jpg``,
``data/train.parquet/17``. A picture has not changed as long as size and time of its file, or of its container, are the same;
then it is not opened. What a container holds is kept beside the index, so that is not opened either.

Everything that uses a picture takes a file. One inside a container becomes a file beside the index when it is found, and stays
there, for articles name it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from PIL import Image

from vedere.atomic import write_atomically
from vedere.compose.containers import SUFFIXES as CONTAINERS
from vedere.compose.containers import Member, member_names, members
from vedere.compose.sidecars import Words, find_list
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.recaption.pictures import SUFFIXES

State = tuple[int, int]
"""Bytes of a file and the nanoseconds of its last change."""

_INSIDE = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(CONTAINERS)))})(?=/)", re.IGNORECASE)
_EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


@dataclass(frozen=True, kw_only=True)
class Content:
    """One picture that is to be read.

    Attributes:
        name: Its id in the gallery.
        picture: The file, or its bytes.
        words: What its container says about it.
        title: A name that may have words.
        problem: Why there is no picture.
    """

    name: str
    picture: Path | bytes = b""
    words: Words = field(default_factory=Words)
    title: str = ""
    problem: str = ""


class Pool:
    """Pictures by name.

    Args:
        source: Folder that is searched in depth, a ``.jsonl`` file that names pictures, a ``.tar`` or a ``.parquet`` file.
        place: Folder of the index; for what is kept.
        captions: List of captions; None: the one beside the pictures, if there is one.

    Attributes:
        folder: What names are relative to.
        captions: List of captions in use.
        taken_out: Folder of the files that were made of pictures inside containers.

    Raises:
        ConfigError: no such folder or file.
    """

    def __init__(self, source: Path, place: Path, captions: Path | None = None) -> None:
        kind = source.suffix.lower()
        self._only: tuple[str, ...] = ()
        self._listed = False
        self._listing_file, self.taken_out = place / "containers.json", place / "pictures"
        if source.is_dir():
            self.folder, self.captions = source.resolve(), captions or find_list(source.resolve())
        elif source.is_file() and kind in {".jsonl", *CONTAINERS}:
            self.folder = source.resolve().parent
            self._listed = kind == ".jsonl"
            self.captions = source if self._listed else captions
            self._only = () if self._listed else (source.name,)
        else:
            what = "is no folder of pictures" if source.exists() else "does not exist"
            raise ConfigError(
                f"gallery {source} {what}; give a folder of pictures, a .jsonl file that names some, or a data set of "
                "pictures: .tar, .parquet, or a folder of them"
            )

    def states(self, listed: Collection[str]) -> dict[str, State]:
        """State of every picture, by name, in the order of files; a container that cannot be read stands for itself.

        Args:
            listed: Names that the list of captions gives.
        """
        found: dict[str, State] = {}
        before, now = self._listing(), dict[str, list[object]]()
        for name in sorted(listed) if self._listed else self._only or self._walk():
            state = self.state(name)
            if state is None:
                continue  # listed but not there (counted), or gone while we looked
            if Path(name).suffix.lower() not in CONTAINERS:
                found[name] = state
                continue
            known = before.get(name)
            now[name] = known if known and known[:2] == [*state] else [*state, self._look_into(name)]
            inside = now[name][2]
            found |= {f"{name}/{one}": state for one in inside} if isinstance(inside, list) else {name: state}
        if now != before:
            text = json.dumps(now, ensure_ascii=False)
            write_atomically(self._listing_file, lambda path: _write(path, text))
        return found

    def state(self, name: str) -> State | None:
        """State of a picture's file or container; None if that has gone."""
        container, _ = self._parted(name)
        return self._stat(container or name)

    def contents(self, names: Sequence[str]) -> Iterator[Content]:
        """Some pictures, those of a container together.

        Raises:
            ConfigError: a parquet file, and pyarrow is not installed.
        """
        for container, group in groupby(names, lambda name: self._parted(name)[0]):
            chosen = list(group)
            if container is None:
                yield from map(self._file, chosen)
            else:
                yield from self._members(container, [self._parted(name)[1] for name in chosen])

    def file(self, name: str) -> Path:
        """A file with the picture.

        Raises:
            MediaError: its container cannot be read, or has changed.
            CheckpointError: it cannot be written beside the index.
        """
        container, inner = self._parted(name)
        if container is None:
            return self.folder / name
        key = hashlib.sha256(json.dumps([name, self._stat(container)]).encode()).hexdigest()[:24]
        there = next(self.taken_out.glob(f"{key}.*"), None)
        if there is not None:
            return there
        try:
            (found,) = members(self.folder / container, [inner])
            if found.problem:
                raise MediaError(found.problem)
            with Image.open(io.BytesIO(found.picture)) as image:
                kind = str(image.format)
        except (RecordError, OSError, ValueError) as error:
            raise MediaError(str(error)) from None
        path = self.taken_out / f"{key}{_EXTENSIONS.get(kind, '.' + kind.lower())}"
        write_atomically(path, lambda target: _write(target, found.picture))
        return path

    def _file(self, name: str) -> Content:
        if Path(name).suffix.lower() in CONTAINERS:  # one that stands for itself
            inside = self._look_into(name)
            return Content(name=name, problem=inside if isinstance(inside, str) else "has changed while it was read")
        return Content(name=name, picture=self.folder / name, title=name)

    def _members(self, container: str, names: Sequence[str]) -> Iterator[Content]:
        left = dict.fromkeys(names)
        problem = "there is no such picture in its data set"
        try:
            for one in members(self.folder / container, names):
                left.pop(one.name, None)
                yield _content(container, one)
        except RecordError as error:
            problem = str(error)
        for name in left:
            yield Content(name=f"{container}/{name}", problem=problem)

    def _look_into(self, name: str) -> list[str] | str:
        """Names of a container's pictures, or why it has none."""
        try:
            return member_names(self.folder / name)
        except RecordError as error:
            return str(error).removeprefix(f"{self.folder / name}: ")

    def _parted(self, name: str) -> tuple[str | None, str]:
        """Container and the name in it; (None, name) for a file. A folder may well be called ``x.tar``."""
        for end in (match.end() for match in _INSIDE.finditer(name)):
            if (self.folder / name[:end]).is_file():
                return name[:end], name[end + 1 :]
        return None, name

    def _stat(self, name: str) -> State | None:
        try:
            state = os.stat(self.folder / name)
        except (OSError, ValueError):
            return None
        return state.st_size, state.st_mtime_ns

    def _walk(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.folder):
            taken_out = str(self.taken_out.resolve())  # an index may lie among the pictures
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and os.path.join(folder, name) != taken_out
            )
            relative = Path(folder).relative_to(self.folder)
            for name in sorted(files):
                if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES | CONTAINERS:
                    yield (relative / name).as_posix()

    def _listing(self) -> dict[str, list[object]]:
        """What containers held when they were last looked into; a damaged file is no more than forgotten."""
        try:
            data = json.loads(self._listing_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        fits = isinstance(data, dict) and all(isinstance(one, list) and len(one) == 3 for one in data.values())
        return data if fits else {}


def _content(container: str, one: Member) -> Content:
    name = f"{container}/{one.name}"
    return Content(name=name, picture=one.picture, words=one.words, title=one.title, problem=one.problem)


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
