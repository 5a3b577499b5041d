"""Subtitle files (SRT) to the text that belongs to sampled frames.

Video-MME (arXiv 2405.21075) gives a model only the subtitles of the frames that it sees. ``frame_aligned`` is the
linked extractor's rule: a frame's time is its index over the frame rate in whole milliseconds; the first record with
start < time < end, both strict, gives its text; frames without a record give nothing; a record that spans several
frames comes several times. ``frame_aligned_unique`` leaves out a line that repeats the one before it; ``full`` is
every line of the file, which is another benchmark than "w/ subs" in the published table. A score must name its mode.

Files of automatic captions are read as they are: markup goes, words stay; records may overlap, be empty, lack their
number or end before they start; all of them stay in file order, because the first match counts. Nothing is guessed in
silence: what was odd is listed in `Subtitles.problems`.

Cost: linear in the file; frames times records for the alignment (0.1 s for 384 frames of an hour).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vedere.config import nearest
from vedere.errors import ConfigError, MediaError

SubtitleMode = Literal["frame_aligned", "frame_aligned_unique", "full"]

_STAMP = r"(\d+)\s*:\s*(\d{1,2})\s*:\s*(\d{1,2})(?:\s*[.,:]\s*(\d{1,3}))?(?!\d)"
_TIMES = re.compile(rf"^\s*{_STAMP}\s*-{{1,2}}>\s*{_STAMP}")
_NUMBER = re.compile(r"\s*\d+\s*")
_MARKUP = re.compile(r"<\s*/?\s*[A-Za-z][^<>]*>|\{\\[^{}]*\}")
_LARGEST = 64_000_000


@dataclass(frozen=True)
class Cue:
    """One record of a subtitle file.

    Attributes:
        start: Milliseconds from the start of the video.
        end: Milliseconds; not always after ``start``.
        text: Words on one line, without markup; may be empty.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Subtitles:
    """Records of a file in their order, the encoding it was read in, and what was odd about it, one sentence each."""

    cues: tuple[Cue, ...]
    encoding: str
    problems: tuple[str, ...] = ()


def decode_text(content: bytes) -> tuple[str, str]:
    """Text and encoding of a file: byte order marks first, then UTF-8, then Windows-1252 with Latin-1 for its gaps.

    UTF-16 without a mark is known by its zero bytes.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace"), encoding
    head = content[:4096]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(zeros) > 1 and zeros.count(0) * 10 > len(zeros) * 4:
            return content.decode(encoding, errors="replace"), encoding
    for encoding in ("utf-8", "cp1252"):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1"), "latin-1"


def _milliseconds(hours: str, minutes: str, seconds: str, fraction: str | None) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int((fraction or "0").ljust(3, "0"))


def _words(lines: Sequence[str]) -> str:
    text = _MARKUP.sub("", " ".join(lines).replace("\\N", " ").replace("\u200b", "").replace("\ufeff", ""))
    return " ".join(text.split())


def parse_srt(text: str, encoding: str = "utf-8") -> Subtitles:
    """Records of the text of an SRT file.

    A record begins at its line of two times; everything up to the next such line is its text, except for a last line
    that is the next record's number. So missing numbers, blank lines inside a text, and CRLF do no harm.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    found: list[tuple[int, int, int, list[str]]] = []
    before: list[str] = []
    for number, line in enumerate(lines, 1):
        times = _TIMES.match(line.lstrip("\ufeff"))
        if times is None:
            (found[-1][3] if found else before).append(line)
            continue
        groups = times.groups()
        if found:
            _drop_number(found[-1][3])
        found.append((number, _milliseconds(*groups[:4]), _milliseconds(*groups[4:]), []))
    problems = []
    if not found:
        problems.append("no line with two times (00:00:01,000 --> 00:00:02,000)")
    if any(line.strip("\ufeff \t") and not _NUMBER.fullmatch(line.strip("\ufeff")) for line in before) and found:
        problems.append(f"text before the first record, in front of line {found[0][0]}")
    cues = tuple(Cue(start, end, _words(block)) for _, start, end, block in found)
    for (number, start, end, _), cue in zip(found, cues, strict=True):
        if end <= start:
            problems.append(
                f"line {number}: the record ends at {end} ms and starts at {start} ms, so no frame is inside"
            )
        elif not cue.text:
            problems.append(f"line {number}: the record has no words")
    if "\ufffd" in text:
        problems.append(f"{text.count(chr(0xFFFD))} characters cannot be read as {encoding}")
    return Subtitles(cues, encoding, tuple(problems))


def _drop_number(block: list[str]) -> None:
    """Removes the next record's number from the end of a record's lines."""
    while block and not block[-1].strip():
        block.pop()
    if block and _NUMBER.fullmatch(block[-1]):
        block.pop()


def read_srt(source: str | Path | bytes) -> Subtitles:
    """Records of an SRT file, in whatever encoding it is.

    Args:
        source: Path, or the content.

    Raises:
        MediaError: a file that is not there, is no file, is over 64 MB, or holds binary data.
    """
    if isinstance(source, bytes):
        name, content = "the subtitle file", source
    else:
        path, name = Path(source), str(source)
        try:
            size = path.stat().st_size
            if size > _LARGEST:
                raise MediaError(f"{name} has {size} bytes; expected an SRT file of at most {_LARGEST}: is it a video?")
            content = path.read_bytes()
        except OSError as error:
            raise MediaError(f"{name} cannot be read ({error.strerror}); expected an SRT file") from None
    text, encoding = decode_text(content)
    if "\x00" in text[:4096]:
        raise MediaError(f"{name} holds binary data; expected an SRT file, which is text")
    found = parse_srt(text, encoding)
    if encoding in ("cp1252", "latin-1"):
        found = Subtitles(
            found.cues, encoding, (f"not UTF-8: read as {encoding}, letters may be wrong", *found.problems)
        )
    return found


def format_srt(cues: Sequence[Cue]) -> str:
    """An SRT file of records; `parse_srt` reads the same records back (a text of digits alone excepted)."""

    def stamp(ms: int) -> str:
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    blocks = [f"{k}\n{stamp(cue.start)} --> {stamp(cue.end)}\n{cue.text}\n" for k, cue in enumerate(cues, 1)]
    return "\n".join(blocks)


def frame_milliseconds(indices: Sequence[int], fps: float) -> list[int]:
    """Times of frames as the reference extractor counts them: index over rate, in whole milliseconds."""
    return [round(index * (1000 / fps)) for index in indices]


def subtitle_lines(cues: Sequence[Cue], mode: SubtitleMode, times: Sequence[int] = ()) -> list[str]:
    """The lines of subtitles that go with frames.

    Args:
        cues: Records in file order.
        mode: Which lines, see the module's text.
        times: Times of the frames in milliseconds (`frame_milliseconds`); ``full`` needs none.

    Returns:
        Lines without empty ones, at most one for each time (all for ``full``).

    Raises:
        ConfigError: an unknown mode.
    """
    if mode not in get_args(SubtitleMode):
        raise ConfigError(
            f"unknown subtitle mode '{mode}'{nearest(mode, get_args(SubtitleMode))} "
            f"(modes: {', '.join(get_args(SubtitleMode))})"
        )
    if mode == "full":
        return [cue.text for cue in cues if cue.text]
    lines: list[str] = []
    for time in times:
        hit = next((cue.text for cue in cues if cue.start < time < cue.end), "")
        if hit and not (mode == "frame_aligned_unique" and lines and lines[-1] == hit):
            lines.append(hit)
    return lines
