"""Conversation + media plans -> the prompt as strings, without a tokenizer.

The first half of `vedere.text.render`: which strings stand where, which of them are learnt, and where media go. It can
be compared with the published strings directly. It is also where everything that does not fit together is refused.

The originals are lenient: surplus pictures vanish, surplus placeholders stay as text. Here both are errors;
``reference=True`` brings their behaviour back and is meant for verification only.

Strings that only a template writes are refused in texts, but for ``<img>`` and ``</img>`` in answers of a history: a model
that is asked about a web page spells them out, and nobody could go on with that conversation.

Placeholders are ``<image>`` and ``<video>`` in user turns; elsewhere they are plain text. A video becomes one line a
frame. Pictures (no videos) without any placeholder are put in front of the first user text, one line each, if that is
unambiguous: in training, or when there is one user turn only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

from vedere.errors import PromptError, RecordError
from vedere.plan import MediaPlan, SpanKind
from vedere.text.chat import Conversation, Template, Turn

_PLACEHOLDER = re.compile("(<image>|<video>)")
_REFERENCE_PLACEHOLDER = re.compile("(<image>)")


class Piece(NamedTuple):
    """A part of the laid-out prompt.

    Attributes:
        text: The literal string; for media the context string, repeated.
        portion: Neighbouring text pieces of the same portion are tokenised as one string.
        trained: The text is a target.
        bos: The tokenizer's bos goes in front, if it has one.
        media: Index of the picture or video, or None for text.
        frame: Index of the frame within it.
        spans: (kind, length) runs of a media piece.
    """

    text: str
    portion: int
    trained: bool = False
    bos: bool = False
    media: int | None = None
    frame: int = 0
    spans: tuple[tuple[SpanKind, int], ...] = ()


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _check_turns(conversation: Conversation, template: Template, train: bool) -> None:
    if not any(turn.role != "system" for turn in conversation):
        raise PromptError(
            f"the conversation has {len(conversation)} turns and no user turn among them; expected at least one question"
        )
    expected = "user"
    for place, turn in enumerate(conversation):
        if turn.role == "system":
            if place:
                raise PromptError(f"turn {place + 1} is a system turn; a system message can only be the first turn")
            continue
        if turn.role != expected:
            raise PromptError(
                f"turn {place + 1} is {'an' if turn.role == 'assistant' else 'a'} {turn.role} turn where {expected} was "
                "expected; user and assistant alternate and the user begins: join or reorder the turns"
            )
        expected = "assistant" if expected == "user" else "user"
        spelled = () if train or turn.role == "user" else (template.image_start, template.image_end)
        found = next((one for one in template.reserved.finditer(turn.content) if one[0] not in spelled), None)
        if found:
            raise PromptError(
                f"the {turn.role} text of turn {place + 1} contains {found[0]!r}, which template '{template.name}' writes "
                "itself; remove it from the text (media are marked by <image> and <video>)"
            )
    if conversation[0].role == "system" and (found := template.reserved.search(conversation[0].content)):
        raise PromptError(
            f"the system text contains {found[0]!r}, which template '{template.name}' writes itself; remove it"
        )
    if train and not any(turn.role == "assistant" and turn.content.strip() for turn in conversation):
        raise RecordError(
            "the sample has no answer text, so no token would be trained; expected at least one assistant turn with text: "
            "drop the record"
        )
    if not train and conversation[-1].role != "user":
        raise PromptError(
            f"the last turn is {conversation[-1].role}'s ({_quoted(conversation[-1].content)}); expected a user turn to "
            "answer: append the question"
        )


def _check_opening(opening: str, template: Template) -> None:
    found = template.reserved.search(Turn("assistant", opening).content)
    if found:
        raise PromptError(
            f"the opening of the answer contains {found[0]!r}, which template '{template.name}' writes itself; remove it"
        )


def _counts(images: int, videos: int) -> str:
    return f"{images} image{'' if images == 1 else 's'} and {videos} video{'' if videos == 1 else 's'}"


def _check_placeholders(conversation: Conversation, plans: Sequence[MediaPlan]) -> None:
    tags = [tag for turn in conversation if turn.role == "user" for tag in _PLACEHOLDER.findall(turn.content)]
    given = ["<video>" if plan.is_video else "<image>" for plan in plans]
    if tags == given:
        return
    asked = _counts(tags.count("<image>"), tags.count("<video>"))
    have = _counts(given.count("<image>"), given.count("<video>"))
    if asked != have:
        raise PromptError(
            f"the user turns hold placeholders for {asked}, but {have} were given; write exactly one <image> or <video> "
            "into a user turn for each"
        )
    place = next(k for k, (tag, kind) in enumerate(zip(tags, given, strict=True)) if tag != kind)
    raise PromptError(
        f"placeholder {place + 1} is {tags[place]}, but media {place + 1} is for {given[place]}; put placeholders and media "
        "into the same order"
    )


def _tag_untagged(
    conversation: Conversation, plans: Sequence[MediaPlan], template: Template, train: bool, reference: bool
) -> tuple[Conversation, int]:
    """Puts placeholders in front where none are written.

    Returns:
        The conversation, and how many pictures go in front of the whole prompt instead.
    """
    pattern = _REFERENCE_PLACEHOLDER if reference else _PLACEHOLDER
    if not plans or any(pattern.search(turn.content) for turn in conversation if reference or turn.role == "user"):
        return conversation, 0
    users = [place for place, turn in enumerate(conversation) if turn.role == "user"]
    if reference:
        if template.untagged_in_front:  # whatever the history, but for one picture only
            return conversation, int(len(plans) == 1)
        if len(users) != 1:
            return conversation, 0
        count = 1
    else:
        if any(plan.is_video for plan in plans):
            return conversation, 0  # refused by the count
        if len(users) != 1 and not train:
            raise PromptError(
                f"{_counts(len(plans), 0)} were given, but none of the {len(users)} user turns holds a placeholder; write "
                "<image> where each picture belongs"
            )
        count = len(plans)
        if template.untagged_in_front:
            return conversation, count
    first = users[0]
    turn = dataclasses.replace(conversation[first], content=template.untagged * count + conversation[first].content)
    return (*conversation[:first], turn, *conversation[first + 1 :]), 0


class _Layout:
    """Collects pieces; keeps count of the media used and of the portion that texts belong to."""

    def __init__(self, plans: Sequence[MediaPlan], template: Template, train: bool, reference: bool) -> None:
        self.plans = plans
        self.template = template
        self.train = train
        self.reference = reference
        self.pieces: list[Piece] = []
        self.used = 0
        self.portion = 0
        self.bos = True
        self.frame_prefix = template.frame_prefix_training if train else template.frame_prefix

    def text(self, text: str, trained: bool = False) -> None:
        if self.bos:  # written even if empty: a picture may come first
            self.pieces.append(Piece(text, self.portion, trained, True))
            self.bos = False
        elif text:
            self.pieces.append(Piece(text, self.portion, trained))

    def border(self, grain: str) -> None:
        """A new portion, if the template's grain is ``grain`` (training always goes by turns, for its labels)."""
        if self.template.grain == grain or (self.train and grain == "turn"):
            self.portion += 1

    def media(self) -> None:
        """The next picture or video."""
        index, template = self.used, self.template
        plan = self.plans[index]
        self.used += 1
        for frame, spans in enumerate(plan.frame_spans):
            lead = "\n" if frame else ""
            if plan.is_video:
                lead += self.frame_prefix.replace("{i}", str(frame + 1))
            self.text(lead + template.image_start)
            tokens = sum(length for _, length in spans)
            self.pieces.append(Piece(template.image_context * tokens, self.portion, False, False, index, frame, spans))
            if template.image_end:
                self.text(template.image_end)

    def content(self, turn: Turn, trained: bool = False) -> None:
        """A turn's text with its media."""
        text = turn.content.strip() if self.train and self.template.strip_training else turn.content
        if not self.plans or (turn.role != "user" and not self.reference):
            self.text(text, trained)
            return
        for place, part in enumerate((_REFERENCE_PLACEHOLDER if self.reference else _PLACEHOLDER).split(text)):
            if place % 2 and self.used < len(self.plans):
                self.media()
            else:
                strip = place and self.train and self.template.strip_after_media
                self.text(part.lstrip() if strip else part, trained)


def _plain_turns(layout: _Layout, conversation: Conversation) -> None:
    """Turns with their headers and ends, as all templates but ixc1's history have them."""
    template, train = layout.template, layout.train
    for turn in conversation:
        if turn.role == "user":
            layout.text(template.user_header)
            layout.border("part")
            layout.content(turn)
            layout.border("part")
            layout.text(template.user_end)
        else:
            layout.text(template.assistant_header)
            if turn.content or not (layout.reference and template.unclosed_empty_answer):
                trained = train and bool(turn.content.strip())
                layout.border("part")
                layout.content(turn, trained)
                layout.border("part")
                layout.text(template.answer_end, trained)
                layout.text(template.after_answer)
        layout.border("turn")


def _bare_turns(layout: _Layout, conversation: Conversation) -> None:
    """Finished turns without ends, a bos on each question and each answer."""
    template = layout.template
    for turn in conversation:
        layout.bos = True  # `text` puts it on the next piece
        layout.portion += 1
        if turn.role == "user":
            layout.text(template.user_header)
            layout.border("part")
            layout.content(turn)
            layout.border("part")
            layout.text(template.assistant_header)
        else:
            layout.content(turn)
    layout.portion += 1


def render_pieces(
    conversation: Conversation,
    plans: Sequence[MediaPlan],
    template: Template,
    *,
    train: bool,
    reference: bool = False,
    opening: str = "",
) -> list[Piece]:
    """Lays a conversation out as strings.

    Args:
        conversation: A system turn or none, then user and assistant in turn; for inference it ends with the user.
        plans: One per picture or video, in the order of the placeholders.
        template: The model's chat template.
        train: Mark targets and close every turn, instead of opening an answer.
        reference: Be as lenient as the originals; for verification only.
        opening: For inference, the beginning of the answer, which the model goes on with.

    Returns:
        Pieces whose texts join to the whole prompt (the bos apart).

    Raises:
        PromptError: turns, placeholders, media and template do not fit together.
        RecordError: training without any answer text.
    """
    if not conversation:
        raise PromptError("the conversation is empty; expected at least one user turn")
    if not reference:
        _check_turns(conversation, template, train)
        _check_opening(opening, template)
    conversation, in_front = _tag_untagged(conversation, plans, template, train, reference)
    if not reference and not in_front:
        _check_placeholders(conversation, plans)

    layout = _Layout(plans, template, train, reference)
    for _ in range(in_front):
        layout.text("")
        layout.media()
    system = template.system_with_media if plans else template.system
    turns: Sequence[Turn] = conversation
    if conversation[0].role == "system":
        # An empty system turn asks for no system block.
        system, turns = conversation[0].content or None, conversation[1:]
    history = turns[:-1] if template.bare_history and not train else ()
    if system is not None and not history:
        own = Turn("system", system)
        layout.text(template.system_header)
        layout.content(own)
        layout.text(template.system_end)
        layout.border("turn")
    if history:
        _bare_turns(layout, tuple(history))
    _plain_turns(layout, tuple(turns[len(history) :]))
    if not train:
        layout.text(template.assistant_header + opening)
    return layout.pieces
