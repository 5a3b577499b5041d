"""What a benchmark asks, before anyone is asked: items, how an item becomes a prompt, and what a judge is asked about it.

The contract between readers of benchmark data, the runner (`vedere.evals.inspect_registry`) and the pure scorers. A reader
turns files into `Item`s; ``Benchmark.prompt`` turns an item into a `Prompt`, mostly by a prompt set of
`vedere.evals.prompt_sets`; the runner asks, and gives the scorer ``{**item.record, answer_field: answer, **judged}``, one
record an item. Whatever the scorer needs therefore stands in ``record``, so that a finished log is scored again from itself.

Media stay where they are until their turn comes: a `Picture` is a path or anything that can be read, `Frames` name the frames
of a video by number. Nothing here imports a model, Inspect or a network library.

Cost: an item is about 1 kB without media.
"""

from __future__ import annotations

import functools
import hashlib
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vedere.errors import MediaError, RecordError
from vedere.evals.records import Row, Scores, Verdict

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["choice", "short", "yes_no", "free", "box"]
"""Which of a prompt set's texts an item takes: options with letters, a word or phrase, yes or no, free text, a box."""


class Stored(Protocol):
    """Content that is read when it is needed, such as a cell of a table."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def read(self) -> bytes:
        """Returns the content of an image file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture.

    Attributes:
        source: Path, content of an image file, or what can be read.
        upscale: The picture is sent this many times as large (InternVL doubles the first one of MMMU).
    """

    source: Path | bytes | Stored
    upscale: int = 1

    @property
    def name(self) -> str:
        """The file's name, or a description."""
        if isinstance(self.source, bytes):
            return f"{len(self.source)} bytes"
        return self.source.name

    def read(self) -> bytes:
        """Returns the content of the image file.

        Raises:
            MediaError: the file cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source
        if isinstance(self.source, Path):
            try:
                return self.source.read_bytes()
            except OSError as error:
                raise MediaError(f"picture {self.source} cannot be read ({error.strerror})") from None
        return self.source.read()

    def images(self) -> list[Image.Image]:
        """Returns the picture decoded, upright, RGB, in a list of one.

        Raises:
            MediaError: not readable as a picture.
        """
        from vedere.vision.pixels import open_image

        try:
            image = open_image(self.read())
        except MediaError as error:
            raise MediaError(f"{self.name}: {error}") from None
        if self.upscale > 1:
            image = image.resize((image.width * self.upscale, image.height * self.upscale))
        return [image]

    def digest(self) -> str:
        """Returns the SHA-256 of what is sent."""
        content = hashlib.sha256(self.read())
        if self.upscale > 1:
            content.update(f"x{self.upscale}".encode())
        return content.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of a video, by number.

    Attributes:
        file: The video.
        indices: Frames in order, counted from 0. Empty in an item: ``Benchmark.prompt`` chooses them.
        times: Their seconds, where known; one a frame.
        side: Frames are sent with at most so many pixels a side; 0 as they are.
    """

    file: Path
    indices: tuple[int, ...] = ()
    times: tuple[float, ...] = ()
    side: int = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.name

    def images(self) -> list[Image.Image]:
        """Returns the frames decoded, upright, RGB.

        Raises:
            MediaError: the video cannot be read, or has no such frame.
        """
        from vedere.vision.video import frames_at

        found = frames_at(self.file, self.indices).frames
        if self.side:
            for image in found:
                image.thumbnail((self.side, self.side))
        return found

    def digest(self) -> str:
        """Returns the SHA-256 of the file's content, the frame numbers and the size."""
        return hashlib.sha256(f"{content_digest(self.file)}|{self.indices}|{self.side}".encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's content; a file that did not change is read once.

    Raises:
        MediaError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _file_digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise MediaError(f"video {path} cannot be read ({error.strerror})") from None


@functools.lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; size and time of change are there so that a changed file is read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The sound track of a video, for models that hear.

    Attributes:
        file: The video.
    """

    file: Path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.name

    def read(self) -> bytes:
        """Returns the track as an MP3 file: one channel, 16 kHz, 64 kbit/s.

        Raises:
            MediaError: the video cannot be read, or has no sound.
        """
        from vedere.vision.audio import read_audio, write_audio

        with tempfile.TemporaryDirectory() as folder:
            return write_audio(read_audio(self.file), Path(folder) / "sound.mp3").read_bytes()

    def digest(self) -> str:
        """Returns the SHA-256 of the video file's content, as that of its sound."""
        return hashlib.sha256(f"{content_digest(self.file)}|sound".encode()).hexdigest()


Part = str | Picture | Frames | Sound
"""A piece of an item or a prompt; texts and media stand in the order in which they are sent."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question of a benchmark.

    Attributes:
        id: Unique in the benchmark (circular copies have ids of their own).
        parts: The question with its media, in order: text, pictures, frames. Texts hold the question alone, without options,
            hint and instructions; these come from the prompt set.
        kind: Which text of a prompt set it takes.
        options: Letter -> text; empty for questions without options.
        hint: What is told before the question.
        target: The right answer as a text for people who read the log; empty where it is not known.
        record: Fields that the pure scorer needs, answer excepted; JSON values only.
        group: Items of a group are not independent (questions of one picture or video, circular copies): standard errors
            are clustered by it, and a limit keeps groups whole. Empty: the item stands alone.
        metadata: What may be shown beside it (category, split); JSON values only. Never the target.
    """

    id: str
    parts: tuple[Part, ...]
    kind: Kind = "free"
    options: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    target: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """Its texts, joined by newlines."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> tuple[Picture | Frames | Sound, ...]:
        """Its pictures and frames, in order."""
        return tuple(part for part in self.parts if not isinstance(part, str))


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is sent.

    Attributes:
        parts: Texts and media of the user's turn, in order.
        system: System message; empty sends none, so that a model takes its own.
        prefill: Beginning of the answer that the model has to go on with; not part of the recorded answer.
        max_new_tokens: Most tokens of the answer.
        max_tiles: Most tiles for local models: InternVL's tilings share it among the pictures, HD ones take it for each;
            None takes the model's.
        final_rule: How the answer of a response that reasons first is read (`vedere.answers.FINAL_RULES`); empty: whole.
    """

    parts: tuple[Part, ...]
    system: str = ""
    prefill: str = ""
    max_new_tokens: int = 512
    max_tiles: int | None = None
    final_rule: str = ""

    @property
    def text(self) -> str:
        """The user's turn as a text, media as ``<image>`` and ``<video>``: what logs show and answers are keyed by."""
        marks = {Picture: "<image>", Frames: "<video>", Sound: "<audio>"}
        return "".join(part if isinstance(part, str) else marks[type(part)] for part in self.parts)

    @property
    def media(self) -> tuple[Picture | Frames | Sound, ...]:
        """Its pictures and frames, in order."""
        return tuple(part for part in self.parts if not isinstance(part, str))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a benchmark is run; everything here stands in the log.

    Attributes:
        prompts: Name of a prompt set; empty takes the benchmark's first.
        split: Part of the data; empty takes all, or the benchmark's own default.
        limit: Most items, whole groups; None: all.
        seed: Draws the limited items; 0 takes the first ones.
        frames: Frames of a video.
        subtitles: ``off``, ``on``, or what a video benchmark understands besides.
        md5: Expected checksum of the data file; empty takes the table's, if it lists the file.
        frame_rule: Which frames of a video (`vedere.vision.frames`); empty takes the benchmark's rule.
        frame_rate: Frames a second of the rule ``fps``, whose most frames are ``frames``.
        frame_side: Frames are sent with at most so many pixels a side; 0 as they are.
        frame_layout: How frames are shown: ``video``, ``canvas`` (`vedere.vision.canvas`); empty as the prompt set does.
        sound: Videos come with their sound track.
        blind: Questions are asked without their pictures.
    """

    prompts: str = ""
    split: str = ""
    limit: int | None = None
    seed: int = 0
    frames: int = 8
    subtitles: str = "off"
    md5: str = ""
    frame_rule: str = ""
    frame_rate: float = 1.0
    frame_side: int = 0
    frame_layout: str = ""
    sound: bool = False
    blind: bool = False


class Judge(Protocol):
    """What a judge model is asked about answers, and how its reply is read. Pure; the runner asks.

    Attributes:
        tries: Times that a reply which cannot be read is asked for.
        required: Without a judge model the benchmark cannot be run; otherwise `unread` stands in.
    """

    @property
    def tries(self) -> int:
        """Times that a reply is asked for."""
        ...

    @property
    def required(self) -> bool:
        """Whether a judge model is needed."""
        ...

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question about a record with its answer; None where the rules settle it."""
        ...

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns fields that go into the record; None for a reply that cannot be read, which is asked for again."""
        ...

    def unread(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the fields of a record whose judge gave nothing readable in all tries."""
        ...


class Benchmark(Protocol):
    """A benchmark: its reader, its prompts, its scorer.

    Attributes:
        name: As on the command line.
        prompt_sets: Prompt sets it can be asked with, the default first.
        answer_field: Field of the record that the answer goes into, ``prediction`` or ``response``.
        judge: What a judge decides; None for benchmarks of rules alone.
    """

    name: str
    prompt_sets: Sequence[str]
    answer_field: str
    judge: Judge | None

    def load(self, folder: Path, settings: Settings) -> Sequence[Item]:
        """Reads the benchmark's files; all items, whatever the limit is.

        Args:
            folder: Folder with the files, or the file itself.
            settings: Split and checksum matter here.

        Raises:
            RecordError: a file is missing, damaged, or not what the checksum says; with line and field.
        """
        ...

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        """Returns what is sent for an item; chooses the frames of videos.

        Raises:
            ConfigError: an unknown prompt set.
            MediaError: a video cannot be read.
        """
        ...

    def prompts_version(self, prompts: str) -> int | None:
        """Returns the version of the words that a prompt set stands for here; None where items bring their whole wording.

        Args:
            prompts: One of ``prompt_sets``.
        """
        ...

    def score(self, records: Sequence[Mapping[str, Any]]) -> Scores:
        """Scores records with their answers.

        Raises:
            RecordError: a record does not fit.
        """
        ...

    def verdict(self, row: Row) -> Verdict | None:
        """Judges one record for the viewer; None where it has no meaning of its own."""
        ...


def select(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """Returns at most ``limit`` items (at least one group): whole groups, drawn by ``seed``, in their old order.

    Raises:
        RecordError: two items have one id, or there are no items.
    """
    seen: dict[str, int] = {}
    for place, item in enumerate(items, 1):
        if item.id in seen:
            raise RecordError(
                f"items {seen[item.id]} and {place} both have the id '{item.id}'; expected one row a question: remove the "
                "repeated row"
            )
        seen[item.id] = place
    if not items:
        raise RecordError("the benchmark has no items; expected at least one question (is the split's name right?)")
    if limit is None or limit >= len(items):
        return list(items)
    sizes: dict[str, int] = {}
    for item in items:
        sizes[_group(item)] = sizes.get(_group(item), 0) + 1
    names = list(sizes)
    if seed:
        names.sort(key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).digest())
    kept: set[str] = set()
    count = 0
    for name in names:
        if kept and count + sizes[name] > limit:
            break
        kept.add(name)
        count += sizes[name]
    return [item for item in items if _group(item) in kept]


def _group(item: Item) -> str:
    return f"group {item.group}" if item.group else f"item {item.id}"


def thumbnail(image: Image.Image, side: int) -> bytes:
    """Returns a small JPEG of a picture, at most ``side`` pixels a side, for logs."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def clusters(items: Iterable[Item]) -> dict[str, str]:
    """Returns id -> group, an item alone being its own group."""
    return {item.id: item.group or item.id for item in items}
