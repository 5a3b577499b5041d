"""Prompt sets: how a harness words the questions of a benchmark. Data, in ``prompt_sets.json``; this file puts them together.

The same model differs by points between harnesses because of wording, tile limits and answer lengths alone, so a result names
its set and the set's version. Sets: ``official`` (the benchmark's own), ``vlmevalkit``, ``internvl``, ``xcomposer``, and two
that ask for a reasoning first, as InternVL2.5-MPO and InternVL3 are asked on reasoning benchmarks: ``internvl-cot`` (``Final
answer: ..``) and ``internvl-boxed`` (``Answer: \\boxed{..}``). Each has texts by kind of question, an option's form, a limit of
new tokens by kind, a layout of several pictures, a limit of tiles, and what single benchmarks change. A set with a ``base``
says what it changes of that one.

Layouts: ``in_place`` puts the k-th picture where the text says ``<image k>``, others in front; ``front`` puts all in front and
leaves such marks in the text; ``numbered`` is InternVL's ``Image-1: <image>`` for several pictures.

Cost: microseconds.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Literal

from vedere.config import from_dict, nearest
from vedere.errors import ConfigError
from vedere.evals.items import Item, Part, Picture, Prompt

_MARK = re.compile(r"<image (\d+)>")
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Wording of one benchmark's questions by one set.

    Attributes:
        version: Raised with any change of the set.
        about: Where it comes from.
        texts: Kind -> text with ``{question}``, ``{hint}``, ``{options}``; ``direct`` is for choices without options.
        chinese: The same for questions in Chinese, where they differ.
        hint: A hint's form.
        no_hint: What stands for it where there is none.
        option: An option's form.
        prefill: Kind -> beginning of the answer.
        tokens: Kind -> most new tokens.
        layout: Where pictures go.
        tiles: Most tiles of a picture; None leaves it to the model.
        total_tiles: Most tiles of all pictures of a question, each of which gets the same share; None: no such limit.
        upscale_first: The first picture is sent so many times as large.
        cut: The question ends before this text.
        final: Kind -> rule that reads the answer of a response that reasons first (`vedere.answers.FINAL_RULES`).
        benchmarks: Name -> the fields above that a benchmark changes.
    """

    version: int
    about: str
    texts: Mapping[str, str]
    chinese: Mapping[str, str] = field(default_factory=dict)
    hint: str
    no_hint: str
    option: str
    prefill: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, int]
    layout: Literal["in_place", "front", "numbered"]
    tiles: int | None = None
    total_tiles: int | None = None
    upscale_first: int = 1
    cut: str = ""
    final: Mapping[str, str] = field(default_factory=dict)
    benchmarks: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def _sets() -> dict[str, PromptSet]:
    text = (resources.files("vedere.evals") / "prompt_sets.json").read_text("utf-8")
    given: dict[str, dict[str, Any]] = json.loads(text)
    return {name: from_dict(PromptSet, _whole(fields, given)) for name, fields in given.items()}


def _whole(fields: Mapping[str, Any], given: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A set's fields over those of its base."""
    changes = {name: value for name, value in fields.items() if name != "base"}
    base = _whole(given[fields["base"]], given) if "base" in fields else {}
    return {**base, **changes}


def names() -> tuple[str, ...]:
    """Returns the names of all sets."""
    return tuple(_sets())


@functools.cache
def prompt_set(name: str, benchmark: str) -> PromptSet:
    """Returns a set as it words one benchmark.

    Raises:
        ConfigError: an unknown set, with the nearest one.
    """
    if name not in _sets():
        raise ConfigError(f"unknown prompt set '{name}'{nearest(name, _sets())} (prompt sets: {', '.join(_sets())})")
    found = _sets()[name]
    changes: dict[str, Any] = {}
    for key, value in found.benchmarks.get(benchmark, {}).items():
        changes[key] = {**getattr(found, key), **value} if isinstance(value, Mapping) else value
    return replace(found, benchmarks={}, **changes)


def make_prompt(item: Item, name: str, benchmark: str) -> Prompt:
    """Returns an item's prompt by a set. The item's pictures stand before its text.

    Raises:
        ConfigError: an unknown set.
    """
    style = prompt_set(name, benchmark)
    kind = "direct" if item.kind == "choice" and not item.options else item.kind
    question = item.question
    if style.cut:
        question = question.split(style.cut, 1)[0].rstrip()
    fields = {
        "question": question,
        "hint": style.hint.replace("{hint}", item.hint) if item.hint else style.no_hint,
        "options": "".join(_filled(style.option, {"letter": one, "text": text}) for one, text in item.options.items()),
        "prompt": str(item.metadata.get("prompt", question)),
    }
    chinese = kind in style.chinese and _CHINESE.search(question + fields["options"])
    text = _filled(style.chinese[kind] if chinese else style.texts[kind], fields)
    pictures = [one for one in item.media if isinstance(one, Picture)]
    if pictures and style.upscale_first > 1:
        pictures[0] = replace(pictures[0], upscale=style.upscale_first)
    return Prompt(
        parts=_laid_out(text, pictures, style.layout),
        prefill=style.prefill.get(kind, ""),
        max_new_tokens=style.tokens[kind],
        max_tiles=_tiles_together(style, len(pictures)),
        final_rule=style.final.get(kind, ""),
    )


def _tiles_together(style: PromptSet, count: int) -> int | None:
    """Most tiles of a question's pictures together, which local models share among them."""
    if style.tiles is None or style.total_tiles is None or count < 2:
        return style.tiles
    return count * max(1, min(style.tiles, style.total_tiles // count))


def _filled(text: str, fields: Mapping[str, str]) -> str:
    """A text with its fields; braces in what is filled in stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), text)


def _laid_out(text: str, pictures: list[Picture], layout: str) -> tuple[Part, ...]:
    if layout == "numbered" and len(pictures) > 1:
        parts: list[Part] = []
        for number, picture in enumerate(pictures, 1):
            parts += [f"Image-{number}: ", picture, "\n"]
        return (*parts, text)
    if layout != "in_place":
        return (*pictures, text)
    pieces = _MARK.split(text)
    placed = {int(number) for number in pieces[1::2] if 1 <= int(number) <= len(pictures)}
    parts = [picture for number, picture in enumerate(pictures, 1) if number not in placed]
    for place, piece in enumerate(pieces):
        if not place % 2:
            parts += [piece] if piece else []
        elif int(piece) in placed:
            parts.append(pictures[int(piece) - 1])
        else:
            parts.append(f"<image {piece}>")
    return tuple(parts)
