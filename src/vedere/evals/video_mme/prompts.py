"""What stands around a question of Video-MME: the official words, and those of other harnesses, to the byte.

Frames come first, then one text; no system message is prescribed. The options already carry their letters. The
official script's text with subtitles differs from the one without only by the block in front. Videos without
subtitles: the official text says to drop the block where subtitles are not used, so ``official`` drops it;
``vlmevalkit`` leaves an empty block and ``lmms-eval`` says so in words. ``xcomposer`` is XComposer-2.5's adapter in VLMEvalKit:
all frames on one canvas (`vedere.vision.canvas`), a sentence of its own before the kit's text, letters ``A.`` for ``(A)``, at
most 100 new tokens. A score must name its prompt set; each set has a version, which the log names too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vedere.config import nearest
from vedere.errors import ConfigError

VERSIONS = {
    "official": 1,
    "official-older": 1,
    "lmms-eval": 1,
    "vlmevalkit": 1,
    "internvl": 1,
    "xcomposer": 1,
    "text-only": 1,
}
"""Prompt set -> version of its words, raised with any change of them."""
PROMPT_SETS = tuple(VERSIONS)

_SELECT = (
    "Select the best answer to the following multiple-choice question based on the video{also}. Respond with only the "
    "letter (A, B, C, or D) of the correct option.\n"
)
_ALSO = " and the subtitles"
_LISTED = "This video's subtitles are listed below:"
_END = "\nThe best answer is:"
_SOME_FRAMES = "Here are some frames of a video."
_BRACKETED = re.compile(r"\(([A-J])\)")
_TEXT_ONLY = (
    "Select the best answer to the following multiple-choice question. You cannot see the video that it is about. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
)


@dataclass(frozen=True)
class PromptText:
    """Texts around the frames.

    Attributes:
        after: What follows the frames.
        label: Stands before each frame, with its number from 1 as ``{}``, and ends the line after it; empty for none.
        frames: Whether frames are shown at all.
        canvas: All frames are one picture (`vedere.vision.canvas`).
        new_tokens: Most tokens of the answer.
    """

    after: str
    label: str = ""
    frames: bool = True
    canvas: bool = False
    new_tokens: int = 64


def prompt_text(
    name: str, question: str, options: Sequence[str], subtitles: Sequence[str] | None, has_file: bool = True
) -> PromptText:
    """The text of a question.

    Args:
        name: One of `PROMPT_SETS`.
        question: Text without options.
        options: Texts with their letters.
        subtitles: Lines that go with the frames; None in a setting without subtitles.
        has_file: Whether the video has subtitles at all, where the setting uses them.

    Raises:
        ConfigError: an unknown set.
    """
    block = "\n".join([question, *options])
    lines = "\n".join(subtitles or ())
    used = subtitles is not None and has_file
    if name == "official":
        return PromptText((f"{_LISTED}\n{lines}\n" if used else "") + _SELECT.format(also="") + block + _END)
    if name == "official-older":
        head = f"{_LISTED}\n{lines}\n" if used else ""
        return PromptText(head + _SELECT.format(also=_ALSO if used else "") + block + _END)
    if name == "lmms-eval":
        head = "" if subtitles is None else f"{_LISTED} \n{lines if has_file else 'No subtitles available'}\n"
        return PromptText(head + _SELECT.format(also=_ALSO) + block + _END)
    if name in ("vlmevalkit", "internvl", "xcomposer"):
        head = "" if subtitles is None else f"{_LISTED}\n{lines}\n"
        text = f"\nThese are the frames of a video. {head}{_SELECT.format(also='')}Question: {block}\nAnswer: "
        if name == "vlmevalkit":
            return PromptText(text)
        if name == "xcomposer":
            return PromptText(_SOME_FRAMES + _BRACKETED.sub(r"\1.", text), canvas=True, new_tokens=100)
        ask = "\nAnswer with the option's letter from the given choices directly."
        return PromptText(text.replace("\nAnswer:", "") + ask, label="Frame-{}: ")
    if name == "text-only":
        return PromptText(_TEXT_ONLY + block + _END, frames=False)
    raise ConfigError(
        f"unknown prompt set '{name}'{nearest(name, PROMPT_SETS)} (prompt sets: {', '.join(PROMPT_SETS)})"
    )
