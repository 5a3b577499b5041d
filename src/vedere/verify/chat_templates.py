"""Folders of prompts and trained stretches: chat templates, XComposer2's pieces, XComposer's wrapped turns.

Prompts are compared as strings. Trained stretches go through the product's own `render` with a tokenizer of one token a
character (markers are one token each), as they were recorded, and are read back from ids and labels. Both run in the
reference mode, because the recorded code is lenient.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from vedere.errors import CheckpointError
from vedere.plan import MediaPlan, SpanKind, Tile, TilingPolicy
from vedere.text.chat import TEMPLATES, Conversation, Template, Turn, get_template
from vedere.text.layout import Piece, render_pieces
from vedere.text.render import IGNORED, render
from vedere.text.tokenizer import Tokenizer
from vedere.verify.check import Check, failure, table

DIALOGUES = "dialogues.json"
_BOS = "<BOS>"
_IMAGE_HERE = "<ImageHere>"
_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_HD_ALONE, _HD_SEVERAL = 25, 6  # XComposer-2.5's chat: tile limit for one picture, and for each of several


def checks(directory: Path) -> Iterator[Check]:
    """One line a template and column.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = directory / DIALOGUES
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object")
    for key, value in data.items():
        if key == "templates":
            for name, recorded in value.items():
                yield from _template_checks(name, recorded, data.get("num_image_token", 1))
        elif key == "ixc2":
            yield from _ixc2_checks(value)
        elif key == "ixc1":
            yield from _ixc1_checks(value)
        elif key == "num_image_token":
            yield Check(name=key, measure="input")
        else:
            yield failure(key, "recorded, but this kind of folder has no such table")


def _column(name: str, cases: Sequence[tuple[str, Any, Callable[[], Any]]]) -> Check:
    """A line for one column of a table: (case, recorded value, how to compute it)."""
    wrong = []
    for case, recorded, compute in cases:
        try:
            computed = compute()
        except Exception as error:  # a line for every table, whatever stands in it
            wrong.append(f"{case}: {type(error).__name__}: {error}")
            continue
        if computed != recorded:
            wrong.append(f"{case}: {_where(computed, recorded)}")
    return table(name, wrong, len(cases))


def _where(computed: Any, recorded: Any) -> str:
    """The first place where two values differ, as written out."""
    ours, theirs = (value if isinstance(value, str) else repr(value) for value in (computed, recorded))
    pairs = zip(ours, theirs, strict=False)
    place = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    return f"{ours[place : place + 30]!r} where {theirs[place : place + 30]!r} is recorded (character {place})"


def _plans(tiles: Sequence[int], tokens: int) -> list[MediaPlan]:
    """Plans of pictures with these tile counts; only tokens matter to a prompt."""
    policy = TilingPolicy(max_tiles=max([1, *tiles]))
    side = policy.tile
    return [
        MediaPlan(
            width=side * count,
            height=side,
            frames=1,
            policy=policy,
            grid=(count, 1),
            resized=(side * count, side),
            padding=(0, 0, 0, 0),
            tiles=tuple(Tile("tile", (k * side, 0, (k + 1) * side, side)) for k in range(count)),
            spans=((SpanKind.VISUAL, count * tokens),),
        )
        for count in tiles
    ]


def _conversation(
    turns: Sequence[Sequence[str | None]], system: str | None = None, tag: str = "<image>"
) -> Conversation:
    """[[question, answer], ..., [question, None]] as turns."""
    found = [] if system is None else [Turn("system", system)]
    for question, answer in turns:
        found.append(Turn("user", str(question).replace(tag, "<image>")))
        if answer is not None:
            found.append(Turn("assistant", answer.replace(tag, "<image>")))
    return tuple(found)


# --- chat templates ----------------------------------------------------------------------------------------------------


def _template_checks(name: str, recorded: dict[str, Any], tokens: int) -> Iterator[Check]:
    prefix = f"templates.{name}"
    if name not in TEMPLATES:
        yield failure(prefix, f"not a template of this version (templates: {', '.join(sorted(TEMPLATES))})")
        return
    template = get_template(name)
    strings = {
        "system_template": f"{template.system_header}{{system_message}}",
        "roles": [template.user_header, template.assistant_header],
        "sep": template.user_end,
    }
    yield _column(
        f"{prefix}.strings",
        [(k, recorded[k], partial(strings.__getitem__, k)) for k in strings if k in recorded],
    )
    # A model may bring a system message of its own: the recorded one is an input.
    system = recorded.get("system_message", template.system)
    yield Check(name=f"{prefix}.system_message", measure="input")
    dialogues = recorded["dialogues"]
    yield _column(
        f"{prefix}.inference_prompt",
        [(d["name"], d["inference_prompt"], partial(_prompt, d, template, system, tokens)) for d in dialogues],
    )
    trained = [d for d in dialogues if d.get("training")]
    if trained:
        yield _column(
            f"{prefix}.training.spans",
            [(d["name"], _stretches(d["training"]), partial(_trained, d, template, system, tokens)) for d in trained],
        )


def _prompt(dialogue: dict[str, Any], template: Template, system: str | None, tokens: int) -> str:
    plans = _plans(dialogue["tiles_per_image"], tokens)
    pieces = render_pieces(_conversation(dialogue["turns"], system), plans, template, train=False, reference=True)
    return "".join(piece.text for piece in pieces)


def _stretches(training: dict[str, Any]) -> Any:
    """The recorded stretches; where the original masked everything by mistake, only the text counts."""
    pairs = [(bool(span["trained"]), str(span["text"])) for span in training["spans"]]
    return "".join(text for _, text in pairs) if training.get("all_masked") else pairs


def _trained(dialogue: dict[str, Any], template: Template, system: str | None, tokens: int) -> Any:
    """What `render` makes of the training form: (trained, text) runs, or the text alone."""
    training = dialogue["training"]
    turns = [Turn(cast(Any, _ROLES[t["from"]]), t["value"]) for t in training["conversation"]]
    if system is not None and turns[0].role != "system":
        turns.insert(0, Turn("system", system))
    tokenizer = _Characters(template, bos=training["spans"][0]["text"].startswith(_BOS))
    plans = _plans(dialogue["tiles_per_image"], tokens)
    rendered = render(tuple(turns), plans, template, cast(Tokenizer, tokenizer), train=True, reference=True)
    assert rendered.labels is not None
    if training.get("all_masked"):
        return tokenizer.decode(rendered.ids.tolist())
    trained = (rendered.labels != IGNORED).tolist()
    runs = itertools.groupby(zip(trained, rendered.ids.tolist(), strict=True), key=lambda pair: pair[0])
    return [(flag, tokenizer.decode([token for _, token in run])) for flag, run in runs]


class _Characters:
    """A tokenizer of one token a character; the template's markers are one token each."""

    def __init__(self, template: Template, bos: bool) -> None:
        self.markers = [*template.turn_markers, template.image_start, template.image_context, template.image_end]
        self.pattern = re.compile("|".join([*map(re.escape, filter(None, self.markers)), "(?s:.)"]))
        self.bos_id = 0 if bos else None
        self.pieces = [_BOS]
        self.ids = {_BOS: 0}

    def token_id(self, text: str) -> int:
        if text not in self.ids:
            self.ids[text] = len(self.pieces)
            self.pieces.append(text)
        return self.ids[text]

    def encode(self, text: str) -> list[int]:
        return [self.token_id(piece) for piece in self.pattern.findall(text)]

    def encode_array(self, text: str) -> np.ndarray[Any, Any]:
        return np.array(self.encode(text), dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[token] for token in ids)


# --- XComposer2 --------------------------------------------------------------------------------------------------------


def _ixc2_checks(recorded: dict[str, Any]) -> Iterator[Check]:
    meta = recorded.get("meta_instruction_used")
    if meta is not None:
        yield Check(name="ixc2.meta_instruction_used", measure="input")
    dialogues = recorded["dialogues"]
    for form, system in (("without_meta", None), ("with_meta", meta)):
        cases = [d for d in dialogues if form in d]
        for column, compute in (("pieces", _ixc2_pieces), ("rendered", _ixc2_rendered)):
            yield _column(
                f"ixc2.{form}.{column}",
                [(d["name"], d[form][column], partial(compute, d, system)) for d in cases],
            )


def _ixc2_pieces(dialogue: dict[str, Any], system: str | None) -> list[dict[str, Any]]:
    """Text runs and pictures in order, as the original hands them on."""
    count = dialogue["images"]
    conversation = _conversation(dialogue["turns"], system, _IMAGE_HERE)
    pieces = render_pieces(conversation, _plans([1] * count, 1), get_template("ixc2"), train=False, reference=True)
    found: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.media is not None:
            found.append({"image": piece.media, "hd_num": _HD_ALONE if count == 1 else _HD_SEVERAL})
        elif found and "text" in found[-1] and not piece.bos:
            found[-1]["text"] += piece.text
        else:
            found.append({"text": piece.text, "bos": piece.bos})
    return found


def _ixc2_rendered(dialogue: dict[str, Any], system: str | None) -> str:
    return "".join(piece.get("text", _IMAGE_HERE) for piece in _ixc2_pieces(dialogue, system))


# --- XComposer ---------------------------------------------------------------------------------------------------------

_USER, _BOT, _OTHER = "USERTEXT", "BOTTEXT", "OTHERTEXT"


def _ixc1_checks(recorded: dict[str, Any]) -> Iterator[Check]:
    for key, value in recorded.items():
        if key == "wrap_prompt":
            for part in ("prefix", "suffix"):
                yield _column(
                    f"ixc1.wrap_prompt.{part}",
                    [(c["case"], c[part], partial(_ixc1_wrapped, c["case"], part)) for c in value],
                )
        elif key == "wrap_text":
            yield _column("ixc1.wrap_text", [("wrap_text", value, _ixc1_text)])
        elif key == "order":
            yield Check(name="ixc1.order", measure="input")
        else:
            yield failure(f"ixc1.{key}", "recorded, but this kind of folder has no such table")


def _ixc1_pieces(*turns: Turn) -> list[Piece]:
    return render_pieces(turns, (), get_template("ixc1"), train=False, reference=True)


def _ixc1_wrapped(case: str, part: str) -> dict[str, Any]:
    """What stands in front of (``prefix``) or behind (``suffix``) a question."""
    user, other, bot = Turn("user", _USER), Turn("user", _OTHER), Turn("assistant", _BOT)
    if case == "first turn":
        pieces = _ixc1_pieces(user)
    elif case == "later turn":
        pieces = _ixc1_pieces(other, bot, user)
        pieces = pieces[_place(pieces, _BOT) + 1 :]
    elif case == "history entry":
        pieces = _ixc1_pieces(user, bot, other)
        pieces = pieces[: _place(pieces, _BOT)]
    else:
        raise CheckpointError(f"unknown case '{case}'; expected first turn, later turn or history entry")
    middle = _place(pieces, _USER)
    return _joined(pieces[:middle] if part == "prefix" else pieces[middle + 1 :])


def _ixc1_text() -> str:
    """One closed exchange as the original's text-only helper writes it, with a space behind the question."""
    pieces = _ixc1_pieces(Turn("system", ""), Turn("user", f"{_USER} "))
    return "".join(piece.text for piece in pieces) + _BOT


def _place(pieces: Sequence[Piece], text: str) -> int:
    return next(k for k, piece in enumerate(pieces) if piece.text == text)


def _joined(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {"text": "".join(piece.text for piece in pieces), "bos": any(piece.bos for piece in pieces)}
