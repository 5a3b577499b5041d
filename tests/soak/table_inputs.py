"""Files of benchmarks, damaged: parquet, JSON lines, JSON and CSV, up to items and requests."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from cases import Case, law
from mutations import damage, damage_json, dump_json

from vedere.errors import VedereError
from vedere.evals.items import Settings, select
from vedere.evals.open_suite import OpenImages, OpenVideos, data_folder
from vedere.evals.safety.mis import load_mis
from vedere.evals.safety.neighbours import load_neighbour
from vedere.evals.safety.records import read_table
from vedere.evals.video_mme.questions import COLUMNS, read_questions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "evals"))
import stand_ins

SECRET = "stand-in question"
Rows = list[dict[str, Any]]


def _rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _table(rows: Rows, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, buffer, compression=rng.choice(("snappy", "gzip", "none", "zstd")))
    return buffer.getvalue()


class Tables:
    """A Video-MME parquet file, the open suite's files, a safety set in two forms."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.videos = (_rows(data_folder() / name) for name in ("images.jsonl", "videos.jsonl"))
        self.parquet_rows: Rows = [{name: row.get(name, "") for name in COLUMNS} for row in self.videos]
        stand_ins.mis(folder / "mis", mark=" secret")
        self.mis: Rows = json.loads((folder / "mis" / "mis_hard.json").read_text())
        stand_ins.figstep(folder / "mis")
        self.figstep = (folder / "mis" / "safebench.csv").read_bytes()

    def case(self, rng: random.Random, folder: Path) -> Case:
        kinds: dict[str, Callable[[random.Random, Path], tuple[str, Callable[[], None], tuple[str, ...]]]] = {
            "parquet": self._parquet,
            "images": self._lines(self.images, OpenImages(), "images.jsonl"),
            "videos": self._lines(self.videos, OpenVideos(), "videos.jsonl"),
            "mis": self._mis,
            "csv": self._csv,
        }
        name = rng.choice(list(kinds))
        what, run, names = kinds[name](rng, folder)
        return Case(what=f"{name}: {what}", names=names, run=run, expect="works" if what == "as it is" else "either")

    def _parquet(self, rng: random.Random, folder: Path) -> tuple[str, Callable[[], None], tuple[str, ...]]:
        path, rows, what = folder / "given.parquet", self.parquet_rows, "as it is"
        draw = rng.random()
        if 0.05 < draw < 0.5:
            rows, what = damage_json(rows[:8], rng)
        try:
            data = _table(rows, rng)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, AttributeError, KeyError):
            data, what = _table(self.parquet_rows, rng), "as it is"  # no table holds such rows
        if draw >= 0.5:
            if rng.random() < 0.5:  # where the structure is
                tail, what = damage(data[-1500:], rng)
                data = data[:-1500] + tail
            else:
                data, what = damage(data, rng)
        path.write_bytes(data)

        def run() -> None:
            found = read_questions(path)
            ids = [one.question_id for one in found.questions]
            law(len(set(ids)) == len(ids), "an id twice")
            law(
                all(one.answer in "ABCD" and len(one.options) == 4 for one in found.questions),
                "a question without its options",
            )

        return what, run, ("given",)

    def _lines(self, rows: Rows, part: Any, name: str) -> Any:
        def make(rng: random.Random, folder: Path) -> tuple[str, Callable[[], None], tuple[str, ...]]:
            for beside in ("media", "subtitles"):
                os.symlink(data_folder() / beside, folder / beside)
            chosen, what, draw = rng.sample(rows, 6), "as it is", rng.random()
            lines = [dump_json(row) for row in chosen]
            if 0.05 < draw < 0.7:
                at = rng.randrange(6)
                value, what = damage_json(chosen[at], rng)
                lines[at] = dump_json(value)
            data = b"\n".join(lines)
            if draw >= 0.7:
                data, what = damage(data, rng)
            (folder / name).write_bytes(data)

            def run() -> None:
                items = select(part.load(folder, Settings()), None, 0)
                for item in items:
                    law(item.id and item.question is not None, "an item without id or question")
                    law(not item.options or item.target in item.options, "a target that is no option")
                    prompt = part.prompt(item, Settings(prompts="blind"))
                    law(not prompt.media, "a blind prompt with media")
                part.score([{**item.record, part.answer_field: item.target} for item in items])

            return what, run, (name, "line ", "items ", "folder")

        return make

    def _mis(self, rng: random.Random, folder: Path) -> tuple[str, Callable[[], None], tuple[str, ...]]:
        for beside in ("hard_image",):
            os.symlink(self.folder / "mis" / beside, folder / beside)
        draw, value, what = rng.random(), self.mis, "as it is"
        if 0.05 < draw < 0.7:
            value, what = damage_json(self.mis, rng)
        data = dump_json(value)
        if draw >= 0.7:
            data, what = damage(data, rng)
        (folder / "mis_hard.json").write_bytes(data)
        return what, lambda: quiet(lambda: load_mis(folder, "hard", consent=True, complete=False)), ("mis", "hard")

    def _csv(self, rng: random.Random, folder: Path) -> tuple[str, Callable[[], None], tuple[str, ...]]:
        os.symlink(self.folder / "mis" / "images", folder / "images")
        (folder / "carrier.txt").write_text(f"[{SECRET} 1]")
        data, what = self.figstep, "as it is"
        if rng.random() > 0.05:
            data, what = damage(data, rng)
        (folder / "safebench.csv").write_bytes(data)

        def run() -> None:
            quiet(lambda: load_neighbour(folder, "figstep", consent=True, complete=False))
            quiet(lambda: read_table(folder / "safebench.csv"))

        return what, run, ("safebench", "figstep", "csv")


def quiet(work: Callable[[], Any]) -> None:
    """Does the work; no message and no `repr` may hold a request's text."""
    try:
        found = work()
    except VedereError as error:
        law(SECRET not in str(error), "a message with the text of a request")
        raise
    if found and not isinstance(found[0], dict):
        law(SECRET not in repr(found), "a repr with the text of a request")
        law(all(len(one.images) in (1, 2) for one in found), "a request without its pictures")


def make(folder: Path) -> Tables:
    """The family."""
    csv.field_size_limit(131072)
    return Tables(folder)
