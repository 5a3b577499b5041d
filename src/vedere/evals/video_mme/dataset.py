"""Video-MME as a benchmark that the runner asks: questions to items, an item to a prompt.

A folder holds the parquet, the videos and the SRT files, at any depth; transcripts in a folder ``transcripts`` beside
them take the place of subtitles where asked for. Questions about a video that is not there, or cannot be read, stay
in the run without being asked, and are counted apart: they are in no denominator. The three questions of a video are
one group.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vedere.config import nearest
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.items import Frames, Item, Part, Picture, Prompt, Settings, Sound
from vedere.evals.records import Row, Scores, Verdict
from vedere.evals.tables import check_md5
from vedere.evals.video_mme.inputs import OFF, InputConfig, VideoInput, choose
from vedere.evals.video_mme.media import MediaFolder, find_media
from vedere.evals.video_mme.prompts import PROMPT_SETS, VERSIONS, PromptText, prompt_text
from vedere.evals.video_mme.questions import question_file, read_questions
from vedere.evals.video_mme.scorer import outcome
from vedere.evals.video_mme.taxonomy import DURATIONS
from vedere.vision.canvas import canvas_layout, canvas_tiles, fitted, frame_canvas, thinned
from vedere.vision.subtitles import SubtitleMode

TRANSCRIPTS = "transcript"
"""Value of the setting ``subtitles`` that takes transcripts, frame-aligned."""
_MODES = (OFF, "on", *get_args(SubtitleMode), TRANSCRIPTS)


def input_config(settings: Settings) -> InputConfig:
    """The inputs that a run's settings ask for; ``on`` is the frame-aligned mode.

    Raises:
        ConfigError: an unknown mode, rule or prompt set.
    """
    if settings.subtitles not in _MODES:
        raise ConfigError(
            f"subtitles '{settings.subtitles}'{nearest(settings.subtitles, _MODES)} (video-mme takes {', '.join(_MODES)})"
        )
    named = settings.subtitles in ("on", TRANSCRIPTS)
    return InputConfig(
        frames=settings.frames,
        rule=settings.frame_rule or "middle",  # type: ignore[arg-type]
        rate=settings.frame_rate,
        subtitles="frame_aligned" if named else settings.subtitles,
        transcripts=settings.subtitles == TRANSCRIPTS,
        audio=settings.sound,
        side=settings.frame_side,
        layout=settings.frame_layout,
        prompts=settings.prompts or PROMPT_SETS[0],
    )


@functools.lru_cache(maxsize=1)
def _decoded(file: Path, indices: tuple[int, ...], side: int) -> list[Any]:
    return Frames(file=file, indices=indices, side=side).images()


@dataclass(frozen=True)
class StoredFrame:
    """One frame of those that a prompt shows: decoded together with the others, when the first is needed."""

    file: Path
    indices: tuple[int, ...]
    place: int
    side: int

    @property
    def name(self) -> str:
        """File and frame number."""
        return f"{self.file.name} frame {self.indices[self.place]}"

    def read(self) -> bytes:
        """Returns the frame as a BMP file: no loss, no time.

        Raises:
            MediaError: the video cannot be read.
        """
        buffer = io.BytesIO()
        _decoded(self.file, self.indices, self.side)[self.place].save(buffer, "BMP")
        return buffer.getvalue()


@functools.lru_cache(maxsize=1)
def _canvas(file: Path, indices: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    fitted(frame_canvas(Frames(file=file, indices=indices).images())).save(buffer, "BMP")
    return buffer.getvalue()


@dataclass(frozen=True)
class StoredCanvas:
    """Frames of a video on one canvas, as XComposer-2.5 takes it; the three questions of a video share it."""

    file: Path
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """File and frame numbers."""
        return f"{self.file.name} canvas of frames {', '.join(map(str, self.indices))}"

    def read(self) -> bytes:
        """Returns the canvas as a BMP file.

        Raises:
            MediaError: the video cannot be read.
        """
        return _canvas(self.file, self.indices)


@dataclass(frozen=True, kw_only=True)
class VideoMME:
    """The benchmark; see `vedere.evals.items.Benchmark`."""

    name: str = "video-mme"
    prompt_sets: Sequence[str] = PROMPT_SETS
    answer_field: str = "response"
    judge: None = None

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        """Reads questions and finds media: see `Benchmark.load`. ``split`` is a duration, or empty."""
        config = input_config(settings)
        if settings.split and settings.split not in DURATIONS:
            raise ConfigError(f"split '{settings.split}'; video-mme has {', '.join(DURATIONS)}, or none for all")
        path = question_file(folder)
        check_md5(path, settings.md5)
        questions = read_questions(path)
        if questions.problems:
            raise RecordError(
                f"{path.name} {questions.problems[0]} ({len(questions.problems)} bad rows): mend or remove them"
            )
        media = self._media(folder if folder.is_dir() else folder.parent, config)
        items = []
        for one in questions.questions:
            if settings.split in ("", one.duration):
                video, text = media.videos.get(one.media_id), media.subtitles.get(one.media_id)
                parts: tuple[Part, ...] = (one.question,) if video is None else (Frames(file=video), one.question)
                items.append(
                    Item(
                        id=one.question_id,
                        parts=parts,
                        kind="choice",
                        options={option[0]: option for option in one.options},
                        target=one.answer,
                        record={"question_id": one.question_id, **one.place, "answer": one.answer},
                        group=one.video_id,
                        metadata={
                            "duration": one.duration,
                            "domain": one.domain,
                            "sub_category": one.sub_category,
                            "task_type": one.task_type,
                            "video": one.media_id,
                            "subtitles": "" if text is None else str(text),
                        },
                    )
                )
        return items

    def _media(self, root: Path, config: InputConfig) -> MediaFolder:
        texts = root / "transcripts" if config.transcripts else root
        if not texts.is_dir():
            raise ConfigError(
                f"{root} has no folder transcripts; make it with vedere video-mme transcribe {root} --out {texts}"
            )
        found = find_media(root, texts)
        if not config.transcripts:
            there = {name: path for name, path in found.subtitles.items() if path.parent.name != "transcripts"}
            return MediaFolder(found.videos, there, found.notes)
        return found

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        """Chooses frames and subtitles, and puts the words around them: see `Benchmark.prompt`."""
        config = input_config(settings)
        options = tuple(item.options.values())
        if config.prompts == "text-only":
            blind = prompt_text("text-only", item.question, options, None)
            return Prompt(parts=(blind.after,), max_new_tokens=blind.new_tokens)
        frames = next((part for part in item.media if isinstance(part, Frames)), None)
        if frames is None:
            raise MediaError(f"video {item.metadata['video']} of question {item.id} is not among the files")
        text = str(item.metadata["subtitles"])
        found = choose(frames.file, Path(text) if text else None, config)
        words = prompt_text(config.prompts, item.question, options, found.lines, found.has_file)
        parts, tiles = shown_frames(frames.file, found, config, words)
        parts += [Sound(file=frames.file)] if config.audio and found.info.has_audio else []
        return Prompt(parts=(*parts, words.after), max_new_tokens=words.new_tokens, max_tiles=tiles)

    def prompts_version(self, prompts: str) -> int | None:
        """Version of a prompt set's words: see `Benchmark.prompts_version`."""
        return VERSIONS[prompts]

    def score(self, records: Sequence[Mapping[str, Any]]) -> Scores:
        """Scores records: see `vedere.evals.video_mme.scorer`."""
        return score_rows(self.name, [Row(line, record) for line, record in enumerate(records, 1)])

    def verdict(self, row: Row) -> Verdict | None:
        """Judges one record; None for one that was not asked or has no letter."""
        found = outcome(row)
        if found.response is None or not found.official:
            return None
        return Verdict(line=row.line, credit=float(found.official == found.answer), extracted=found.official)


def shown_frames(
    file: Path, found: VideoInput, config: InputConfig, words: PromptText
) -> tuple[list[Part], int | None]:
    """Frames on a canvas, as one part, or each as a picture after its label; and most tiles of a picture, if it is said."""
    if config.canvas:
        indices = tuple(found.indices[place] for place in thinned(len(found.indices)))
        layout = canvas_layout(found.info.width, found.info.height, len(indices))
        return [Picture(source=StoredCanvas(file, indices))], canvas_tiles(layout)
    if not words.label or config.layout == "video":
        return [Frames(file=file, indices=found.indices, times=found.times, side=config.side)], None
    parts: list[Part] = []
    for place in range(len(found.indices)):
        picture = Picture(source=StoredFrame(file, found.indices, place, config.side))
        parts += [words.label.format(place + 1), picture, "\n"]
    return parts, 1


VIDEO_MME = VideoMME()
"""The benchmark under its name."""
