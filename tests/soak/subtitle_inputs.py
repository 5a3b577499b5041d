"""Subtitle files (SRT), damaged: bytes, lines, times, encodings; up to the lines that stand in a prompt."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from cases import Case, law
from mutations import damage, splice

from vedere.evals.open_suite import data_folder
from vedere.vision.subtitles import format_srt, frame_milliseconds, parse_srt, read_srt, subtitle_lines

EXTRA = (
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Über 图 🙂</i>\n\n2\n00:00:02,500 --> 00:00:04,000\n{\\an8}two\nlines\n",
    "\ufeff1\r\n0:0:1.5 -> 0:0:3\r\nno zeros\r\n\r\n\r\n00:00:03,000 --> 00:00:03,500\r\n12\r\n",
)
PIECES = (
    "-->",
    "00:00:01,000 --> 00:00:00,000",
    "9" * 6000,
    "\0",
    "\u2028",
    "<" * 4000,
    "{\\" * 3000,
    "\ud7ff",
    "99:99:99,999",
    "",
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1", "gb18030", "shift_jis")


class SubtitleFiles:
    """SRT files of every kind."""

    def __init__(self) -> None:
        shipped = sorted((data_folder() / "subtitles").glob("*.srt"))
        self.texts = [*(path.read_text("utf-8") for path in shipped), *EXTRA]

    def case(self, rng: random.Random, folder: Path) -> Case:
        text, path = rng.choice(self.texts), folder / "given.srt"
        draw = rng.random()
        good = draw < 0.05
        if good:
            what = "as it is"
        elif draw < 0.45:
            what, text = self._lines(text, rng)
        else:
            what = "bytes"
        encoding = "utf-8" if good else rng.choice(ENCODINGS)
        data = text.encode(encoding, "replace")
        if what == "bytes" and data:
            data, what = damage(data, rng)
        elif not good and rng.random() < 0.15:
            data, what = splice(data, rng.randbytes(400), rng), "spliced with noise"
        path.write_bytes(data)
        if not good and rng.random() < 0.06:
            path.unlink()
            what = "not there"
            if rng.random() < 0.5:
                path.mkdir()
                what = "a folder"
        missing = what in ("not there", "a folder")
        return Case(
            what=f"{encoding}: {what}",
            names=("given",),
            expect="works" if good else "refused" if missing else "either",
            run=lambda: read(path),
        )

    def _lines(self, text: str, rng: random.Random) -> tuple[str, str]:
        """Lines dropped, repeated, exchanged, or a piece of trouble put into one."""
        lines = text.split("\n")
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        way = rng.choice(("drop", "repeat", "exchange", "insert", "replace", "join"))
        if way == "drop":
            del lines[at]
        elif way == "repeat":
            lines[at:at] = [lines[other]] * rng.choice((1, 2, 200))
        elif way == "exchange":
            lines[at], lines[other] = lines[other], lines[at]
        elif way == "insert":
            place = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + rng.choice(PIECES) + lines[at][place:]
        elif way == "replace":
            lines[at] = rng.choice(PIECES)
        return f"lines: {way}", rng.choice(("\n", "\r\n", "\r")).join(lines) if way == "join" else "\n".join(lines)


def read(path: Path) -> None:
    """Reads, aligns, writes and reads again."""
    found = read_srt(path)
    for cue in found.cues:
        law(cue.start >= 0 and cue.end >= 0, f"a record from {cue.start} to {cue.end}")
        law("\n" not in cue.text and cue.text == cue.text.strip(), f"a text with blanks around it: {cue.text[:40]!r}")
    plain = [cue for cue in found.cues if not cue.text.isdigit() and "-" not in cue.text and "<" not in cue.text]
    if len(plain) == len(found.cues) and all("{" not in cue.text and cue.start < 3.6e11 for cue in plain):
        again = parse_srt(format_srt(found.cues)).cues
        law(len(again) == len(found.cues), f"{len(found.cues)} records became {len(again)} when written and read")
        law([cue.start for cue in again] == [cue.start for cue in found.cues], "times changed when written and read")
    times = frame_milliseconds(range(0, 720, 24), 24.0)
    lines = subtitle_lines(found.cues, "frame_aligned", times)
    law(len(lines) <= len(times), f"{len(lines)} lines for {len(times)} frames")
    law(all(lines), "an empty line")
    unique = subtitle_lines(found.cues, "frame_aligned_unique", times)
    law(all(one != other for one, other in itertools.pairwise(unique)), "a line twice in a row")
    whole = subtitle_lines(found.cues, "full")
    law(set(lines) <= set(whole), "a line of a frame that is not in the file")


def make(folder: Path) -> SubtitleFiles:
    """The family."""
    return SubtitleFiles()
