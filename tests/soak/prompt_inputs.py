"""Conversations and templates: each case is a good conversation with one known change, so its verdict is known."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from cases import Case, law

from vedere.plan import MediaPlan, SpanKind, TilingPolicy, plan_media
from vedere.text.chat import TEMPLATES, Conversation, Template, Turn, get_template
from vedere.text.render import IGNORED, Rendered, render
from vedere.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "text"))
from small_vocabularies import train_raw

POLICY = TilingPolicy(tile=28, patch=7, max_tiles=6)
FRAGMENTS = (
    "What is in the picture?",
    "12 green cars",
    "naïve café",
    "图里有什么? 一只猫。",
    "🙂👩‍👩‍👧‍👦🇮🇹",
    "é é e\N{COMBINING ACUTE ACCENT}\N{COMBINING ACUTE ACCENT}",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc\N{POP DIRECTIONAL FORMATTING}",
    "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NO-BREAK SPACE}",
    "\0\x01\x7f\x85\N{LINE SEPARATOR}",
    "tabs\tand\r\nlines\n\n",
    "   ",
    "< image >",
    "<image",
    "image>",
    "<|",
    "|>",
    "<|im_",
    "end|>",
    "{i}",
    "\\",
    "$A",
    "▁",
    "\U0010ffff\ufffe",
    "a" * 3000,
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
)
Expect = Literal["works", "refused", "either"]
Change = Callable[["Prompts", random.Random, "Draft"], tuple[str, Expect, tuple[str, ...]]]


@dataclasses.dataclass
class Draft:
    """A conversation that is still being changed; ``texts`` in the order of turns."""

    turns: list[tuple[str, str]]
    plans: list[MediaPlan]
    name: str
    train: bool

    @property
    def template(self) -> Template:
        return get_template(self.name)

    def users(self) -> list[int]:
        return [place for place, (role, _) in enumerate(self.turns) if role == "user"]

    def insert(self, place: int, text: str, rng: random.Random) -> None:
        """Puts a text in front of a turn or behind it."""
        role, content = self.turns[place]
        self.turns[place] = (role, content + text if rng.random() < 0.5 else text + content)


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(FRAGMENTS) + rng.choice((" ", "\n")) for _ in range(rng.choice((1, 1, 2, 3))))


class Prompts:
    """Conversations over all templates."""

    def __init__(self, folder: Path) -> None:
        train_raw().save(str(folder / "tokenizer.json"))
        self.tokenizer = Tokenizer.load(folder)

    def draft(self, rng: random.Random) -> Draft:
        """A good conversation with media."""
        template = TEMPLATES[rng.choice(list(TEMPLATES))]
        train = rng.random() < 0.5
        plans = []
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            width, height = rng.randint(1, 400), rng.randint(1, 400)
            frames = rng.randint(1, 5) if rng.random() < 0.3 else None
            plans.append(plan_media(width, height, POLICY, frames=frames))
        turns = [("system", _text(rng))] if rng.random() < 0.3 else []
        rounds = rng.choice((1, 1, 2, 3))
        tags = ["<video>" if plan.is_video else "<image>" for plan in plans]
        borders = sorted(rng.randint(0, len(tags)) for _ in range(rounds - 1))
        for start, end in zip([0, *borders], [*borders, len(tags)], strict=True):
            turns.append(("user", "".join(tag + rng.choice(("", "\n", _text(rng))) for tag in tags[start:end]) + "?"))
            turns.append(("assistant", "An answer. " + _text(rng)))
        return Draft(turns if train else turns[:-1], plans, template.name, train)

    def case(self, rng: random.Random, folder: Path) -> Case:
        draft = self.draft(rng)
        change = rng.choice(CHANGES)
        what, expect, names = change(self, rng, draft)
        (folder / "draft.txt").write_text(repr((what, draft)), encoding="utf-8", errors="backslashreplace")
        return Case(what=what, names=names, expect=expect, run=lambda: self._check(draft, what))

    def _check(self, draft: Draft, what: str) -> None:
        conversation: Conversation = tuple(Turn(role, text) for role, text in draft.turns)  # type: ignore[arg-type]
        template = draft.template
        rendered = render(conversation, draft.plans, template, self.tokenizer, train=draft.train)
        check_rendered(rendered, draft.plans, template, self.tokenizer, draft.train)
        for _, text in draft.turns:
            ids = self.tokenizer.encode(text)
            law(self.tokenizer.decode(ids, skip_special=False) == text, f"{text[:200]!r} does not come back")
            stream = self.tokenizer.stream(skip_special=False)
            law("".join(map(stream.push, ids)) + stream.flush() == text, "the stream differs from the text")
        if "marker" not in what:
            plain = tuple(
                dataclasses.replace(turn, content="<image>" * turn.content.count("<image>") + "x" * bool(turn.content))
                if "<video>" not in turn.content
                else turn
                for turn in conversation
            )
            if any("<image>" in turn.content for turn in conversation if turn.role != "user"):
                return
            bare = render(plain, draft.plans, template, self.tokenizer, train=draft.train)
            special = [self._specials(one.ids) for one in (rendered, bare)]
            law(special[0] == special[1], f"a text forges a marker: {special}")

    def _specials(self, ids: np.ndarray) -> int:
        return int(np.isin(ids, list(self.tokenizer.special_ids)).sum())


def check_rendered(
    rendered: Rendered, plans: list[MediaPlan], template: Template, tokenizer: Tokenizer, train: bool
) -> None:
    """The span law and the laws of labels."""
    ids = rendered.ids
    law(ids.dtype == np.int64 and ids.ndim == 1 and len(ids) > 0, f"ids {ids.dtype} {ids.shape}")
    law(ids.min() >= 0 and ids.max() < tokenizer.vocab_size, "ids outside of the vocabulary")
    covered, at = np.zeros(len(ids), bool), 0
    for span in rendered.spans:
        law(span.start >= at and span.length > 0, f"span {span} overlaps or is empty")
        at = span.start + span.length
        covered[span.start : at] = True
    if plans:
        law(np.array_equal(covered, ids == tokenizer.token_id(template.image_context)), "spans are not where media are")
    for media, plan in enumerate(plans):
        own = [(span.kind, span.length) for span in rendered.spans if span.media == media]
        law(tuple(own) == plan.spans, f"spans {own} of a plan with {plan.spans}")
    law(np.array_equal(rendered.span_types != SpanKind.TEXT, covered), "span types")
    law((rendered.labels is None) == (not train), "labels only in training")
    if rendered.labels is not None:
        trained = rendered.labels != IGNORED
        law(rendered.labels.shape == ids.shape and trained.any(), "labels")
        law(np.array_equal(rendered.labels[trained], ids[trained]), "labels are not the ids")
        law(not (trained & covered).any(), "a trained media position")


# --- changes: (what, verdict, what a message must name) ----------------------------------------------------------------


def _none(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    return "as it is", "works", ()


def _kinds(draft: Draft) -> tuple[int, int]:
    videos = sum(plan.is_video for plan in draft.plans)
    return len(draft.plans) - videos, videos


def _untagged_is_fine(draft: Draft) -> bool:
    tags = sum(text.count("<image>") + text.count("<video>") for role, text in draft.turns if role == "user")
    return tags == 0 and not _kinds(draft)[1] and (draft.train or len(draft.users()) == 1 or not draft.plans)


def _more_tags(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    draft.insert(rng.choice(draft.users()), rng.choice(("<image>", "<video>")), rng)
    return "one placeholder more", "refused", (f"{_kinds(draft)[0]} image",)


def _fewer_tags(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    tagged = [
        place for place in draft.users() if "<image>" in draft.turns[place][1] or "<video>" in draft.turns[place][1]
    ]
    if not tagged:
        return "no placeholder to remove", "works", ()
    place = rng.choice(tagged)
    tag = "<image>" if "<image>" in draft.turns[place][1] else "<video>"
    draft.turns[place] = ("user", draft.turns[place][1].replace(tag, "", 1))
    return "one placeholder less", "works" if _untagged_is_fine(draft) else "refused", ("image",)


def _more_plans(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    draft.plans.insert(0, plan_media(50, 50, POLICY, frames=rng.choice((None, None, 2))))
    return "one picture more", "works" if _untagged_is_fine(draft) else "refused", (f"{_kinds(draft)[0]} image",)


def _fewer_plans(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    if not draft.plans:
        return "no picture to remove", "works", ()
    draft.plans.pop(rng.randrange(len(draft.plans)))
    return "one picture less", "refused", (f"{_kinds(draft)[0]} image",)


def _other_order(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    before = [plan.is_video for plan in draft.plans]
    draft.plans.reverse()
    same = before == [plan.is_video for plan in draft.plans]
    return "media in another order", "works" if same else "refused", ("placeholder",)


def _marker(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    template = draft.template
    markers = {template.image_start, template.image_context, template.image_end, *template.turn_markers} - {""}
    marker, place = rng.choice(sorted(markers)), rng.randrange(len(draft.turns))
    role = draft.turns[place][0]
    draft.insert(place, marker, rng)
    if role == "assistant" and not draft.train and marker in (template.image_start, template.image_end):
        return "a marker that an answer may spell", "works", ()
    return "a marker in a text", "refused", (repr(marker), *(repr(other) for other in markers if marker in other))


def _foreign_marker(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    other = TEMPLATES[rng.choice(list(TEMPLATES))]
    marker = rng.choice(sorted({other.image_start, other.image_context, *other.turn_markers, *other.stop} - {""}))
    draft.insert(rng.randrange(len(draft.turns)), marker, rng)
    return "a foreign marker in a text", "either", (marker,)


def _tag_elsewhere(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    places = [place for place, (role, _) in enumerate(draft.turns) if role != "user"]
    if not places:
        return "as it is", "works", ()
    draft.insert(rng.choice(places), rng.choice(("<image>", "<video>")), rng)
    return "a placeholder outside of user turns", "works", ()


def _role(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    place = rng.randrange(len(draft.turns))
    role = rng.choice(("human", "User", "", "tool", "assistent"))
    draft.turns[place] = (role, draft.turns[place][1])
    return "an unknown role", "refused", (repr(role),)


def _order(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    place = rng.randrange(len(draft.turns))
    role = draft.turns[place][0]
    if role == "system":
        draft.turns.append(draft.turns[place])
    else:
        draft.turns.insert(place, draft.turns[place])
    return "turns out of order", "refused", ("turn",)


def _unfinished(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    if draft.train:
        draft.turns = [(role, "" if role == "assistant" else text) for role, text in draft.turns]
        return "no answer to train on", "refused", ("answer",)
    draft.turns.append(("assistant", "the end"))
    return "an answer as the last turn", "refused", ("the end",)


def _empty(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    draft.turns = [turn for turn in draft.turns if turn[0] == "system"]
    return "no user turn", "refused", ("conversation",)


def _not_text(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    place = rng.randrange(len(draft.turns))
    value = rng.choice((None, 1, b"bytes", ["list"]))
    draft.turns[place] = (draft.turns[place][0], value)  # type: ignore[assignment]
    return "content that is no text", "refused", (type(value).__name__,)


def _surrogate(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    draft.insert(rng.randrange(len(draft.turns)), rng.choice(("\ud800", "a\udfff", "\udc80\ud83d")), rng)
    return "half of a surrogate pair", "refused", ("surrogate",)


def _template_name(self: Prompts, rng: random.Random, draft: Draft) -> tuple[str, Expect, tuple[str, ...]]:
    name = rng.choice((draft.template.name.upper() + "x", "", "\ud800", "internvl3", draft.template.name[:-1]))
    draft.name = name
    return "an unknown template", "refused", (repr(name), f"'{name}'")


CHANGES: tuple[Change, ...] = (
    _none,
    _none,
    _more_tags,
    _fewer_tags,
    _more_plans,
    _fewer_plans,
    _other_order,
    _marker,
    _foreign_marker,
    _tag_elsewhere,
    _role,
    _order,
    _unfinished,
    _empty,
    _not_text,
    _surrogate,
    _template_name,
)


def make(folder: Path) -> Prompts:
    """The family; its tokenizer knows the markers of all templates."""
    return Prompts(folder)
