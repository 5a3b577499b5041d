"""Records of the InternVL and LLaVA families become samples.

A line of an annotation file is ``{"id", "image": str | [str], "video": str, "clip": [start, end], "conversations":
[{"from": "human" | "gpt" | "system", "value": text}]}``; lines without media are text-only. A meta file names data sets:
``{name: {"root", "annotation", "data_augment", "repeat_time", "length", "max_dynamic_patch", "conv_style"}}`` (InternVL,
arXiv 2312.14238; used by Mono-InternVL, 2410.08202, and InternVL3, 2504.10479).

What differs, and why: the originals log a bad record and draw another one, so that a broken data set trains silently on
its good part; here a record either becomes a sample or is an error that names file and line, and skipping is the
loader's decision. Missing placeholders are prepended to the first human turn as in the originals, but only when all are
missing: with some missing, nobody can know which picture belongs where.

Cost: one scan of the file for line offsets (0.2 s a million lines, 12 bytes a line); afterwards any record is one read.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vedere.config import from_dict, nearest
from vedere.data.sample import MediaRef, Sample
from vedere.errors import ConfigError, RecordError
from vedere.text.chat import Turn

Kind = Literal["image", "video"]
Resolve = Callable[[Kind, str, tuple[float, float] | None], MediaRef]

ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_PLACEHOLDER = re.compile(r"<(image|video)>")
_LARGEST = sys.float_info.max  # integers of JSON have no end


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a data set says about all of its records.

    Attributes:
        name: Name of the data set.
        augment: ``data_augment`` of the meta file.
        max_tiles: ``max_dynamic_patch`` of the meta file.
        template: ``conv_style`` of the meta file.
        licence: Licence of records that name none.
    """

    name: str
    augment: bool = False
    max_tiles: int | None = None
    template: str = ""
    licence: str = ""


def _text(value: object, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where}: {what} is {_short(value)}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecordError(f"{where}: {what} holds half of a surrogate pair; write whole characters") from None
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _turns(record: Mapping[str, Any], where: str) -> list[Turn]:
    conversations = record.get("conversations")
    if not isinstance(conversations, list) or not conversations:
        raise RecordError(
            f"{where}: 'conversations' is {_short(conversations)}; "
            'expected a list of {"from": "human" | "gpt" | "system", "value": text}'
        )
    turns: list[Turn] = []
    for number, item in enumerate(conversations, 1):
        if not isinstance(item, dict):
            raise RecordError(f'{where}: turn {number} is {_short(item)}; expected {{"from": ..., "value": ...}}')
        speaker = item.get("from")
        if not isinstance(speaker, str) or speaker not in ROLES:
            hint = nearest(speaker, ROLES) if isinstance(speaker, str) else ""
            raise RecordError(
                f"{where}: turn {number} is from {_short(speaker)}{hint}; expected one of {', '.join(ROLES)}"
            )
        role = ROLES[speaker]
        before = turns[-1].role if turns else None
        expected = "assistant" if before == "user" else "user"
        if role != expected and not (role == "system" and before is None):
            raise RecordError(
                f"{where}: turn {number} is from '{speaker}' where {expected} should speak; "
                "turns alternate between human and gpt after at most one leading system turn"
            )
        turns.append(Turn(role=role, content=_text(item.get("value"), f"'value' of turn {number}", where)))
    if turns[-1].role == "system":
        raise RecordError(f"{where}: the conversation holds a system turn only; add a human turn and its answer")
    return turns


def _names(record: Mapping[str, Any], kind: Kind, where: str) -> list[str]:
    value = record.get(kind)
    if value is None or value == "" or value == []:
        return []
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not _text(name, f"'{kind}'", where) or "\0" in name:
            raise RecordError(f"{where}: '{kind}' holds {_short(name)}; expected a path")
    return names


def _clip(record: Mapping[str, Any], videos: int, where: str) -> tuple[float, float] | None:
    clip = record.get("clip")
    if clip is None:
        return None
    if (
        not isinstance(clip, list)
        or len(clip) != 2
        or not all(isinstance(t, int | float) and not isinstance(t, bool) for t in clip)
        or not 0 <= clip[0] < clip[1] <= _LARGEST
    ):
        raise RecordError(f"{where}: 'clip' is {_short(clip)}; expected [start, end] in seconds with 0 <= start < end")
    if videos != 1:
        raise RecordError(f"{where}: 'clip' with {videos} videos; a clip belongs to exactly one 'video'")
    return float(clip[0]), float(clip[1])


def _place_media(turns: list[Turn], counts: dict[Kind, int], where: str) -> list[Kind]:
    """Prepends missing placeholders (in place) and returns the kinds of media in the order of their placeholders."""
    found: list[Kind] = [
        "image" if kind == "image" else "video"
        for turn in turns
        if turn.role == "user"
        for kind in _PLACEHOLDER.findall(turn.content)
    ]
    missing: list[Kind] = []
    for kind, count in counts.items():
        present = found.count(kind)
        if present == count:
            continue
        if present:
            raise RecordError(
                f"{where}: {count} {kind}s but {present} <{kind}> in the human turns; write one <{kind}> for each, or none"
                if count
                else f"{where}: {present} <{kind}> in the human turns but no '{kind}'; name the file or remove the tag"
            )
        missing += [kind] * count
    if missing:
        first = next(index for index, turn in enumerate(turns) if turn.role == "user")
        prefix = "".join(f"<{kind}>\n" for kind in missing)
        turns[first] = Turn(role="user", content=prefix + turns[first].content)
    return missing + found


def sample_from_record(record: object, *, info: DatasetInfo, where: str, key: str, resolve: Resolve) -> Sample:
    """Checks a decoded record and makes its sample.

    Args:
        record: The decoded JSON value.
        info: What its data set says.
        where: Place of the record for messages: ``file:line``.
        key: Name of the record when it has no ``id``.
        resolve: Makes a reference of (kind, name in the record, clip).

    Raises:
        RecordError: the record cannot become a sample.
    """
    if not isinstance(record, dict):
        raise RecordError(f"{where}: the record is {_short(record)}; expected a JSON object with 'conversations'")
    turns = _turns(record, where)
    names: dict[Kind, list[str]] = {kind: _names(record, kind, where) for kind in ("image", "video")}
    clip = _clip(record, len(names["video"]), where)
    order = _place_media(turns, {kind: len(names[kind]) for kind in names}, where)
    left = {kind: iter(names[kind]) for kind in names}
    weight = record.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= _LARGEST:
        raise RecordError(f"{where}: 'weight' is {_short(weight)}; expected a number > 0")
    identity = record.get("id")
    if isinstance(identity, str):
        _text(identity, "'id'", where)
    return Sample(
        name=f"{info.name}#{identity if isinstance(identity, str | int) and identity != '' else key}",
        conversation=tuple(turns),
        media=tuple(resolve(kind, next(left[kind]), clip if kind == "video" else None) for kind in order),
        source=where,
        weight=float(weight),
        licence=_text(record.get("licence", info.licence), "'licence'", where),
        augment=info.augment,
        max_tiles=info.max_tiles,
        template=info.template,
    )


def decode_json(data: bytes, where: str) -> object:
    """``json.loads`` with messages that say where and what.

    Raises:
        RecordError: not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise RecordError(f"{where}: nested too deeply to be a record; remove it") from None
    except ValueError as error:
        raise RecordError(f"{where}: not JSON ({error}); expected one JSON object a line") from None


class JsonlRecords:
    """Samples of one annotation file, by index.

    Blank lines are no records. Only the offsets of the lines are kept; the file is opened for each read, so that the
    object can be sent to worker processes.

    Args:
        path: The annotation file, one JSON object a line.
        root: Folder that media names are relative to.
        info: What the data set says about its records; by default only its name, the file's.

    Raises:
        RecordError: the file is missing, empty, or not in lines.
    """

    def __init__(self, path: Path | str, *, root: Path | str = "", info: DatasetInfo | None = None) -> None:
        """Scans the file for line borders."""
        self.path = Path(path)
        self.root = Path(root)
        self.info = info or DatasetInfo(name=self.path.stem)
        self._offsets = array("q")
        self._numbers = array("L")
        self._scan()

    def _scan(self) -> None:
        position = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        self._offsets.append(position)
                        self._numbers.append(number)
                        if len(self._offsets) == 1 and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
                            raise RecordError(
                                f"{self.path}:{number}: the file is a JSON array; expected one JSON object a line "
                                "(jq -c '.[]' in.json > out.jsonl)"
                            )
                    position += len(line)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise RecordError(
                f"{self.path}: the annotation file of data set '{self.info.name}' cannot be read "
                f"({getattr(error, 'strerror', error)}); "
                "correct 'annotation'"
            ) from None
        if not self._offsets:
            raise RecordError(f"{self.path}: no records; expected one JSON object a line")

    def __len__(self) -> int:
        """Number of records."""
        return len(self._offsets)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            IndexError: no such record.
            RecordError: the record cannot become a sample; names file and line.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.path}")
        number = self._numbers[index]
        where = f"{self.path}:{number}"
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[index])
                line = file.readline()
        except OSError as error:
            raise RecordError(f"{where}: cannot be read ({error.strerror})") from None
        record = decode_json(line, where)
        return sample_from_record(record, info=self.info, where=where, key=str(number), resolve=self._resolve)

    def _resolve(self, kind: Kind, name: str, clip: tuple[float, float] | None) -> MediaRef:
        return MediaRef(kind=kind, path=str(self.root / name), clip=clip)


@dataclass(frozen=True, kw_only=True)
class MetaEntry:
    """One data set of a meta file.

    Attributes:
        annotation: A jsonl file, a tar shard, or a pattern of tar shards.
        root: Folder of the media.
        data_augment: Re-encode tiles in training.
        repeat_time: Share of the file (below 1: its first lines) or how often an epoch repeats it.
        length: Number of records that its author counted; checked by nobody, kept for the originals' readers.
        max_dynamic_patch: Tile limit of the data set.
        conv_style: Chat template of the data set.
        weight: Share of the draws, relative to the other data sets; None: proportional to size times ``repeat_time``.
        licence: Licence of the records.
    """

    annotation: str
    root: str = ""
    data_augment: bool = False
    repeat_time: float = 1.0
    length: int | None = None
    max_dynamic_patch: int | None = None
    conv_style: str = ""
    weight: float | None = None
    licence: str = ""

    def info(self, name: str) -> DatasetInfo:
        """What its records inherit."""
        return DatasetInfo(
            name=name,
            augment=self.data_augment,
            max_tiles=self.max_dynamic_patch,
            template=self.conv_style,
            licence=self.licence,
        )


def read_meta(path: Path | str) -> dict[str, MetaEntry]:
    """Reads an InternVL meta file.

    Relative paths in it are looked up beside the meta file first, then from the working directory as the originals do.

    Returns:
        Entries by name, in the order of the file, with paths resolved.

    Raises:
        RecordError: the file is missing, is not a JSON object of objects, or an entry has unknown keys or wrong values.
    """
    path = Path(path)
    try:
        content = decode_json(path.read_bytes(), str(path))
    except OSError as error:
        raise RecordError(f"{path}: the meta file cannot be read ({error.strerror})") from None
    if not isinstance(content, dict) or not content:
        raise RecordError(f'{path}: expected {{name: {{"annotation": ..., "root": ...}}}}, one entry a data set')
    return {name: _entry(path, name, value) for name, value in content.items()}


def _entry(path: Path, name: str, value: object) -> MetaEntry:
    where = f"{path}, data set '{name}'"
    if not isinstance(value, dict):
        raise RecordError(f'{where}: {_short(value)}; expected {{"annotation": ..., "root": ...}}')
    try:
        entry = from_dict(MetaEntry, value)
    except ConfigError as error:
        raise RecordError(f"{where}: {error}") from None
    if not 0 < entry.repeat_time < math.inf:
        raise RecordError(
            f"{where}: repeat_time {entry.repeat_time}; expected a number > 0 (to leave a data set out, delete its entry)"
        )
    if entry.weight is not None and not 0 < entry.weight < math.inf:
        raise RecordError(f"{where}: weight {entry.weight}; expected a number > 0, or none")
    if entry.max_dynamic_patch is not None and entry.max_dynamic_patch < 1:
        raise RecordError(f"{where}: max_dynamic_patch {entry.max_dynamic_patch}; expected at least 1 tile")
    for key, value in (("annotation", entry.annotation), ("root", entry.root)):
        if "\0" in value:
            raise RecordError(f"{where}: '{key}' is {_short(value)}; expected a path")
    fields: dict[str, Any] = dict(vars(entry))
    fields["annotation"] = _beside(path, entry.annotation)
    fields["root"] = _beside(path, entry.root) if entry.root else ""
    return MetaEntry(**fields)


def _beside(meta: Path, name: str) -> str:
    """``name`` beside the meta file if that exists (or matches), else as written."""
    here = meta.parent / name
    return str(here) if os.path.exists(here) or _matches(meta.parent, name) else name


def _matches(folder: Path, pattern: str) -> bool:
    if Path(pattern).is_absolute() or not any(sign in pattern for sign in "*?["):
        return False
    try:
        return any(folder.glob(pattern))
    except (OSError, ValueError, NotImplementedError):  # no pattern after all: it is reported when it is opened
        return False
