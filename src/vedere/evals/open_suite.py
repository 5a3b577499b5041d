"""The open suite: a small set of our own that ships with the package, so that evaluation works without a download.

108 questions about photographs, documents and several pictures at once (``open-images``), 37 about clips in Video-MME's columns
(arXiv 2405.21075), with durations, domains, task types and subtitles (``open-videos``). Everything may be passed on: CC-BY,
CC0, drawn or written for it; ``open_data/ledger.json`` names every file's source, licence and author. Four questions about
clips can only be answered from the subtitles.

It is a check of the machinery and a first look at a model; too few questions to rank models that are close. "Long" is half a
minute here. The prompt set ``blind`` leaves pictures and frames out: what a model gets right without them, it did not see.

Cost: 2 MB in the package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from vedere.errors import ConfigError, RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.items import Frames, Item, Judge, Picture, Prompt, Settings
from vedere.evals.open_scoring import judge, read_choice
from vedere.evals.prompt_sets import make_prompt
from vedere.evals.records import Row, Scores, Verdict, read_rows
from vedere.evals.video_mme.inputs import OFF, InputConfig, choose
from vedere.evals.video_mme.prompts import prompt_text

Record = Mapping[str, Any]
BLIND = "blind"
IMAGE_PROMPTS = ("internvl", "vlmevalkit", "official", "xcomposer", BLIND)
VIDEO_PROMPTS = ("official", "vlmevalkit", "internvl", BLIND)
_PLACES = ("duration", "domain", "sub_category", "task_type")
_NEW_TOKENS = 32


def data_folder() -> Path:
    """Where the shipped files are."""
    return Path(str(resources.files("vedere.evals") / "open_data"))


def ledger() -> list[dict[str, Any]]:
    """Source, licence, attribution and changes of every file."""
    found: list[dict[str, Any]] = json.loads((data_folder() / "ledger.json").read_text("utf-8"))
    return found


def _file(folder: Path, name: str, row: Row) -> Path:
    path = folder / name
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)) or not os.path.isfile(path):
        raise row.fail(f"'{name[:60]}' is not below {folder}", "the suite's folder, whole")
    return path


def _words(row: Row, name: str) -> str:
    text = row.text(name)
    if not text.strip():
        raise row.fail(f"'{name}' is empty", "a text")
    return text


def _prompts(name: str, given: str, valid: Sequence[str]) -> str:
    if given and given not in valid:
        raise ConfigError(f"{name} has no prompts of '{given}'; expected one of {', '.join(valid)}")
    return given or valid[0]


@dataclass(frozen=True, kw_only=True)
class OpenImages:
    """Questions about pictures; see `vedere.evals.items.Benchmark`."""

    name: str = "open-images"
    prompt_sets: Sequence[str] = IMAGE_PROMPTS
    answer_field: str = "prediction"
    judge: Judge | None = None

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        """Reads ``images.jsonl``; ``split`` is a category.

        Raises:
            RecordError: a file is missing, or a row does not fit.
            ConfigError: an unknown category.
        """
        file = folder if folder.is_file() else folder / "images.jsonl"
        rows = read_rows(file)
        if settings.split:
            there = dict.fromkeys(row.text("category") for row in rows)
            if settings.split not in there:
                raise ConfigError(f"open-images has no category '{settings.split}' (categories: {', '.join(there)})")
            rows = [row for row in rows if row.text("category") == settings.split]
        return [self._item(row, file.parent / "media") for row in rows]

    def _item(self, row: Row, folder: Path) -> Item:
        names = row.texts("images")
        pictures = [Picture(source=_file(folder, name, row)) for name in names]
        choice = row.text("kind") == "choice"
        record = {key: row.data[key] for key in ("id", "kind", "category", "options", "answer") if key in row.data}
        # A row that cannot be scored is said before the model is asked.
        judge(Row(row.line, {**record, "prediction": ""}))
        return Item(
            id=_words(row, "id"),
            parts=(*pictures, _words(row, "question")),
            kind="choice" if choice else "short",
            options=row.options() if choice else {},
            target=row.texts("answer")[0],
            record=record,
            group="+".join(sorted(names)),
            metadata={"category": row.text("category")},
        )

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        """Words the question; ``blind`` leaves the pictures out."""
        name = _prompts(self.name, settings.prompts, self.prompt_sets)
        if name == BLIND:
            item = replace(item, parts=(item.question,))
        made = make_prompt(item, IMAGE_PROMPTS[0] if name == BLIND else name, self.name)
        return replace(made, max_new_tokens=min(_NEW_TOKENS, made.max_new_tokens))

    def score(self, records: Sequence[Record]) -> Scores:
        """Scores by the pure rules."""
        return score_rows(self.name, [Row(number, row) for number, row in enumerate(records, 1)])

    def verdict(self, row: Row) -> Verdict | None:
        """Scores one record."""
        return judge(row)


@dataclass(frozen=True, kw_only=True)
class OpenVideos:
    """Questions about clips, in Video-MME's columns; see `vedere.evals.items.Benchmark`."""

    name: str = "open-videos"
    prompt_sets: Sequence[str] = VIDEO_PROMPTS
    answer_field: str = "response"
    judge: Judge | None = None

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        """Reads ``videos.jsonl``; ``split`` is a duration.

        Raises:
            RecordError: a file is missing, or a row does not fit.
            ConfigError: an unknown duration.
        """
        file = folder if folder.is_file() else folder / "videos.jsonl"
        rows = read_rows(file)
        if settings.split:
            there = dict.fromkeys(row.text("duration") for row in rows)
            if settings.split not in there:
                raise ConfigError(f"open-videos has no duration '{settings.split}' (durations: {', '.join(there)})")
            rows = [row for row in rows if row.text("duration") == settings.split]
        return [self._item(row, file.parent) for row in rows]

    def _item(self, row: Row, folder: Path) -> Item:
        options = row.texts("options")
        letters = {text[:1]: text[3:] for text in options}
        if list(letters) != list("ABCD") or row.text("answer") not in letters:
            raise row.fail(
                "'options' or 'answer' is not as in Video-MME", "four texts 'A. ...' to 'D. ...', and a letter"
            )
        clip = row.text("videoID")
        return Item(
            id=_words(row, "question_id"),
            parts=(Frames(file=_file(folder, f"media/{clip}.mp4", row)), _words(row, "question")),
            kind="choice",
            options=letters,
            target=row.text("answer"),
            record={
                **{name: row.text(name) for name in ("question_id", *_PLACES, "answer")},
                "options": list(letters.values()),
            },
            group=clip,
            metadata={
                **{name: row.text(name) for name in _PLACES},
                "needs": "subtitles" if row.data.get("needs_subtitles") else "frames",
            },
        )

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        """Chooses frames and subtitle lines, words the question; ``blind`` leaves frames and subtitles out.

        Raises:
            ConfigError: an unknown prompt set or subtitle mode.
            MediaError: the clip cannot be read.
        """
        name = _prompts(self.name, settings.prompts, self.prompt_sets)
        options = [f"{letter}. {text}" for letter, text in item.options.items()]
        if name == BLIND:
            text = prompt_text("text-only", item.question, options, None)
            return Prompt(parts=(text.after,), max_new_tokens=_NEW_TOKENS)
        subtitles = {"off": OFF, "on": "frame_aligned"}.get(settings.subtitles, settings.subtitles)
        config = InputConfig(frames=settings.frames, subtitles=subtitles, prompts=name)
        (clip,) = (part for part in item.media if isinstance(part, Frames))
        srt = clip.file.parent.parent / "subtitles" / f"{clip.file.stem}.srt"
        chosen = choose(clip.file, srt if srt.is_file() else None, config)
        words = prompt_text(name, item.question, options, chosen.lines, chosen.has_file)
        frames = replace(clip, indices=chosen.indices, times=chosen.times)
        return Prompt(parts=(frames, words.after), max_new_tokens=_NEW_TOKENS)

    def score(self, records: Sequence[Record]) -> Scores:
        """Scores as Video-MME."""
        return score_rows(self.name, [Row(number, row) for number, row in enumerate(records, 1)])

    def verdict(self, row: Row) -> Verdict | None:
        """The letter that is clearly chosen, or the text of exactly one option; the official figures read letters alone."""
        letter = read_choice(row.answer("response"), row.options())
        return Verdict(line=row.line, credit=float(letter == row.text("answer")), extracted=letter)


def open_suite(name: str) -> OpenImages | OpenVideos:
    """A part of the suite by name.

    Raises:
        RecordError: no such part.
    """
    found: dict[str, OpenImages | OpenVideos] = {"open-images": OpenImages(), "open-videos": OpenVideos()}
    if name not in found:
        raise RecordError(f"the open suite has no part '{name}'; expected one of {', '.join(found)}")
    return found[name]
