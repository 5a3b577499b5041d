"""Which questions about one picture share a document, and in which order.

A picture that is asked about four times in one conversation is encoded once: most of what training costs are visual tokens
and the fixed parts of the prompt. What a turn must not do is give a later one away, because then the later answer
is learned from text and not from the picture. An `Ask` therefore names the facts that its answer tells and those
that its question takes for granted: two asks go together if neither answer is told by the other ask. Asks of kinds that
name no facts go together only if their skills differ and neither answer occurs in the other ask; a yes or no that
names no facts stays alone. Captions tell everything, so a caption comes last or not at all.

Cost: microseconds a picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vedere.answers import normalise
from vedere.data.build.record import Ask

MAX_TURNS = 4
CAPTIONS = frozenset({"caption", "describe", "label", "list"})
_LAST_CAPTION = 0.35
"""Share of the conversations that may end with a caption and do."""
_IDENTITY = ("name", "read", "check", "what_at")
"""Skills that all say what the thing is; two of them are one fact."""


def _family(question_type: str) -> str:
    return "identity" if question_type.startswith(_IDENTITY) else question_type


def _tells(ask: Ask) -> str:
    return f" {normalise(ask.question)} {normalise(ask.answer)} "


def together(first: Ask, second: Ask) -> bool:
    """Say whether two asks that are no captions may be turns of one conversation, in either order."""
    if first.facts and second.facts:
        return not (
            set(first.facts) & {*second.facts, *second.given} or set(second.facts) & {*first.facts, *first.given}
        )
    if _family(first.question_type) == _family(second.question_type):
        return False
    for ask, other in ((first, second), (second, first)):
        if not ask.facts and normalise(ask.answer) in ("yes", "no", "true", "false"):
            return False
        if f" {normalise(ask.answer)} " in _tells(other):
            return False
    return True


def choose_turns(asks: Sequence[Ask], rng: random.Random, single: bool) -> tuple[list[Ask], list[Ask]]:
    """Choose the turns of one conversation.

    Args:
        asks: all questions about a picture, preferred ones first; at least one.
        rng: draws the number of turns and their order.
        single: one question only, the first.

    Returns:
        (turns in order, the questions that are left).
    """
    turns = [asks[0]]
    if not single:
        plain = [ask for ask in asks if ask.question_type not in CAPTIONS]
        wanted, chosen = rng.randint(2, MAX_TURNS), list[Ask]()
        for ask in plain:
            if len(chosen) < wanted and all(together(ask, other) for other in chosen):
                chosen.append(ask)
        rng.shuffle(chosen)
        told = {fact for ask in chosen for fact in (*ask.facts, *ask.given)}
        captions = [ask for ask in asks if ask.question_type in CAPTIONS and set(ask.facts) - told]
        if captions and chosen and rng.random() < _LAST_CAPTION:
            chosen = [*chosen[: MAX_TURNS - 1], captions[0]]
        turns = chosen or turns
    return turns, [ask for ask in asks if ask not in turns]
