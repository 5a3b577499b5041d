"""Fine-tuning data of XComposer: JSON arrays with lists of pictures, and the file that mixes them.

A data file is one array ``[{"id", "image": [path, ...], "conversations": [{"from": "user", "value": text}, ...]}, ...]``
(XComposer2, 2.5 and 4KHD, arXiv 2401.16420; the first XComposer, 2309.15112, has ``image`` as one path). Pictures stand in the
text as ``<ImageHere>`` (the first version: ``<image>``), which becomes ``<image>`` here. A mix file (``data.txt``) has one
``path number`` a line: the number is the share of the file that an epoch takes, or with ``given_num`` thousands of samples.

What differs, and why: the originals take every speaker that is not ``human`` or ``user`` for the model, decide by the first
record whether a file has pictures, and draw a fresh random subset when they start. Here speakers are those of
`vedere.data.formats`, every record says itself what it holds, and a share below 1 is the beginning of the file, so that a
run can be resumed and repeated.

Cost: one pass over the file for the places of its records; afterwards any record is one read.
"""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import dataclass
from pathlib import Path

from vedere.data.formats import DatasetInfo, Kind, decode_json, sample_from_record
from vedere.data.sample import MediaRef, Sample
from vedere.errors import RecordError

PICTURE = "<ImageHere>"
_WHITE = " \t\r\n"


class ArrayRecords:
    """Samples of one JSON array, by index.

    Only the places of the records are kept; the file is opened for each read, so that the object can be sent to workers.

    Args:
        path: The data file.
        root: Folder that picture names are relative to.
        info: What the data set says about its records; by default only its name, the file's.

    Raises:
        RecordError: the file is missing, empty, no JSON array, or cut off; names the record where it breaks.
    """

    def __init__(self, path: Path | str, *, root: Path | str = "", info: DatasetInfo | None = None) -> None:
        """Scans the file for the borders of its records."""
        self.path, self.root = Path(path), Path(root)
        self.info = info or DatasetInfo(name=self.path.stem)
        self._starts, self._ends = array("q"), array("q")
        try:
            text = self.path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise RecordError(
                f"{self.path}: the data file cannot be read ({getattr(error, 'strerror', error)}); correct its path"
            ) from None
        self._scan(text)

    def _scan(self, text: str) -> None:
        at = _past_white(text, 1 if text.startswith("\ufeff") else 0)
        if text[at : at + 1] != "[":
            raise RecordError(
                f"{self.path}: the file does not begin with '['; expected one JSON array of records (a file with one object "
                "a line is named .jsonl here)"
            )
        decoder, counted, bytes_before = json.JSONDecoder(), 0, 0
        at = _past_white(text, at + 1)
        closed = text[at : at + 1] == "]"
        while not closed:
            where = self._where(len(self._starts))
            try:
                _, end = decoder.raw_decode(text, at)
            except RecursionError:
                raise RecordError(f"{where}: nested too deeply to be a record; remove it") from None
            except ValueError as error:
                raise RecordError(f"{where}: not JSON ({error}); correct the record, or write the file again") from None
            bytes_before += len(text[counted:at].encode())
            size = len(text[at:end].encode())
            self._starts.append(bytes_before)
            self._ends.append(bytes_before + size)
            counted, bytes_before = end, bytes_before + size
            at = _past_white(text, end)
            sign = text[at : at + 1]
            closed = sign == "]"
            if sign == ",":
                at = _past_white(text, at + 1)
            elif not closed:
                raise RecordError(
                    f"{where}: {sign or 'the end of the file'} follows it; expected ',' or the closing ']'"
                )
        if not self._starts:
            raise RecordError(f"{self.path}: the array holds no records; add some, or leave the file out of the mix")
        if text[at + 1 :].strip():
            raise RecordError(f"{self.path}: text follows the array; expected one array and nothing else")

    def _where(self, index: int) -> str:
        return f"{self.path}, record {index + 1}"

    def __len__(self) -> int:
        """Number of records."""
        return len(self._starts)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            IndexError: no such record.
            RecordError: the record cannot become a sample; names file and record, counted from 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.path}")
        where, start = self._where(index), self._starts[index]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(self._ends[index] - start)
        except OSError as error:
            raise RecordError(f"{where}: cannot be read ({error.strerror})") from None
        record = _with_our_placeholders(decode_json(data, where), where)
        return sample_from_record(record, info=self.info, where=where, key=str(index + 1), resolve=self._resolve)

    def _resolve(self, kind: Kind, name: str, clip: tuple[float, float] | None) -> MediaRef:
        return MediaRef(kind=kind, path=str(self.root / name), clip=clip)


def _past_white(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _WHITE:
        at += 1
    return at


def _with_our_placeholders(record: object, where: str) -> object:
    """The record with ``<image>`` for every ``<ImageHere>``; what is no record stays for `sample_from_record` to refuse."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(turns, list):
        return record
    texts = [turn.get("value") for turn in turns if isinstance(turn, dict)]
    joined = "".join(text for text in texts if isinstance(text, str))
    if PICTURE not in joined:
        return record
    if "<image>" in joined:
        raise RecordError(
            f"{where}: both {PICTURE} and <image> stand in its turns; write one of them for every picture"
        )
    changed = [
        turn | {"value": turn["value"].replace(PICTURE, "<image>")}
        if isinstance(turn, dict) and isinstance(turn.get("value"), str)
        else turn
        for turn in turns
    ]
    return record | {"conversations": changed}


@dataclass(frozen=True, kw_only=True)
class MixEntry:
    """One line of a mix file.

    Attributes:
        path: Data file.
        number: As written: share of the file, or thousands of samples.
        line: Number of the line.
    """

    path: Path
    number: float
    line: int


def read_mix(path: Path | str) -> list[MixEntry]:
    """Reads a mix file; data files are looked up beside it first, then from the working directory.

    Raises:
        RecordError: it is missing or empty, or a line is not ``path number``; names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise RecordError(f"{path}: the mix file cannot be read ({reason}); correct its path") from None
    entries: list[MixEntry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, amount = line.strip().rpartition(" ")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not name.strip() or not 0 < value < math.inf:
            given = line.strip() if len(line) < 80 else line.strip()[:77] + "..."
            raise RecordError(
                f"{path}:{number}: '{given}'; expected 'path.json number' with a number > 0 (to leave a file "
                "out, delete its line)"
            )
        beside = path.parent / name.strip()
        entries.append(MixEntry(path=beside if beside.exists() else Path(name.strip()), number=value, line=number))
    if not entries:
        raise RecordError(f"{path}: no lines; expected 'path.json number', one data file a line")
    return entries
