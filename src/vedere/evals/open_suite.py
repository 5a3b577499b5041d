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

import abc
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
from vedere.evals.prompt_sets import make_prompt, prompt_set
from vedere.evals.records import Row, Scores, Verdict, read_rows
from vedere.evals.video_mme.dataset import input_config, shown_frames
from vedere.evals.video_mme.inputs import choose
from vedere.evals.video_mme.prompts import VERSIONS, prompt_text

Record = Mapping[str, Any]
BLIND = "blind"
IMAGE_PROMPTS = ("internvl", "vlmevalkit", "official", "xcomposer", BLIND)
VIDEO_PROMPTS = ("official", "vlmevalkit", "internvl", "xcomposer", BLIND)
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


@dataclass(frozen=True, kw_only=True)
class _Part(abc.ABC):
    """What both parts have in common: a file of rows that a field splits, prompt sets, a pure scorer.

    Attributes:
        name: Its name, also that of its scorer.
        rows: Name of the file.
        split_field: Field whose values are the splits.
        prompt_sets: Sets it can be asked with, the default first.
        answer_field: Where the answer goes.
        judge: None: rules alone.
    """

    name: str
    rows: str
    split_field: str
    prompt_sets: Sequence[str]
    answer_field: str
    judge: Judge | None = None

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        """Reads the rows; ``split`` is a value of the split field.

        Raises:
            RecordError: a file is missing, or a row does not fit.
            ConfigError: an unknown split.
        """
        file = folder if folder.is_file() else folder / self.rows
        rows = read_rows(file)
        if settings.split:
            there = dict.fromkeys(row.text(self.split_field) for row in rows)
            if settings.split not in there:
                raise ConfigError(
                    f"{self.name} has no {self.split_field} '{settings.split}' (there are: {', '.join(there)})"
                )
            rows = [row for row in rows if row.text(self.split_field) == settings.split]
        return [self._item(row, file.parent) for row in rows]

    @abc.abstractmethod
    def _item(self, row: Row, folder: Path) -> Item:
        """A row as an item; ``folder`` has the media."""

    def _prompts(self, given: str) -> str:
        if given and given not in self.prompt_sets:
            raise ConfigError(f"{self.name} has no prompts of '{given}'; expected one of {', '.join(self.prompt_sets)}")
        return given or self.prompt_sets[0]

    def score(self, records: Sequence[Record]) -> Scores:
        """Scores by the pure rules."""
        return score_rows(self.name, [Row(number, row) for number, row in enumerate(records, 1)])


@dataclass(frozen=True, kw_only=True)
class OpenImages(_Part):
    """Questions about pictures; see `vedere.evals.items.Benchmark`. Splits are categories."""

    name: str = "open-images"
    rows: str = "images.jsonl"
    split_field: str = "category"
    prompt_sets: Sequence[str] = IMAGE_PROMPTS
    answer_field: str = "prediction"

    def _item(self, row: Row, folder: Path) -> Item:
        names = row.texts("images")
        pictures = [Picture(source=_file(folder / "media", name, row)) for name in names]
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
        name = self._prompts(settings.prompts)
        if name == BLIND:
            item = replace(item, parts=(item.question,))
        made = make_prompt(item, IMAGE_PROMPTS[0] if name == BLIND else name, self.name)
        return replace(made, max_new_tokens=min(_NEW_TOKENS, made.max_new_tokens))

    def prompts_version(self, prompts: str) -> int | None:
        """Version of a prompt set's words: see `Benchmark.prompts_version`."""
        return prompt_set(IMAGE_PROMPTS[0] if prompts == BLIND else prompts, self.name).version

    def verdict(self, row: Row) -> Verdict | None:
        """Scores one record."""
        return judge(row)


@dataclass(frozen=True, kw_only=True)
class OpenVideos(_Part):
    """Questions about clips, in Video-MME's columns; see `vedere.evals.items.Benchmark`. Splits are durations."""

    name: str = "open-videos"
    rows: str = "videos.jsonl"
    split_field: str = "duration"
    prompt_sets: Sequence[str] = VIDEO_PROMPTS
    answer_field: str = "response"

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
            ConfigError: an unknown prompt set, subtitle mode, rule or layout of frames.
            MediaError: the clip cannot be read.
        """
        name = self._prompts(settings.prompts)
        options = [f"{letter}. {text}" for letter, text in item.options.items()]
        if name == BLIND:
            text = prompt_text("text-only", item.question, options, None)
            return Prompt(parts=(text.after,), max_new_tokens=_NEW_TOKENS)
        # Frames are a video here, whatever the set does with Video-MME's, but for the canvas that a set is made of.
        layout = settings.frame_layout or ("" if name == "xcomposer" else "video")
        config = input_config(replace(settings, prompts=name, frame_layout=layout))
        if config.transcripts:
            raise ConfigError("open-videos has no transcripts; expected subtitles off, on, or a mode of Video-MME's")
        (clip,) = (part for part in item.media if isinstance(part, Frames))
        srt = clip.file.parent.parent / "subtitles" / f"{clip.file.stem}.srt"
        chosen = choose(clip.file, srt if srt.is_file() else None, config)
        words = prompt_text(name, item.question, options, chosen.lines, chosen.has_file)
        parts, tiles = shown_frames(clip.file, chosen, config, words)
        return Prompt(parts=(*parts, words.after), max_new_tokens=_NEW_TOKENS, max_tiles=tiles)

    def prompts_version(self, prompts: str) -> int | None:
        """Version of a prompt set's words: see `Benchmark.prompts_version`."""
        return VERSIONS["text-only" if prompts == BLIND else prompts]

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
