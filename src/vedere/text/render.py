"""Conversation + media plans -> token ids, labels and spans. The only place that expands media.

`render_pieces` (`vedere.text.layout`) lays the prompt out as strings; `render` tokenises these in the same portions as
the originals do (in training each turn by itself: joining first could merge tokens across a turn's border; of
InternVL's prompts for an answer all that stands between media) and fills media positions straight from the plans.

**The span law**: spans are ordered and disjoint, lie exactly on the positions that hold the media's context id, and
their lengths sum to the tokens of all plans. It is checked on every call that is not ``reference``.

Cost: about 0.1 ms for a short dialogue. Short texts are remembered by the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vedere.errors import ContextError, PromptError, RecordError
from vedere.plan import MediaPlan, SpanKind
from vedere.text.chat import Conversation, Template
from vedere.text.layout import Piece, render_pieces
from vedere.text.tokenizer import Tokenizer

__all__ = ["IGNORED", "Piece", "Rendered", "Span", "context_check", "render", "render_pieces"]

IGNORED = -100


class Span(NamedTuple):
    """A run of media positions.

    Attributes:
        media: Index of the picture or video in the sample.
        frame: Index of the video frame; 0 for pictures.
        start: First position.
        length: Number of positions.
        kind: What the positions hold.
    """

    media: int
    frame: int
    start: int
    length: int
    kind: SpanKind


@dataclass(frozen=True, eq=False)
class Rendered:
    """A conversation as the model takes it.

    Attributes:
        ids: int64 [T].
        labels: int64 [T], not shifted, -100 where nothing is learnt; None for inference.
        spans: Media positions in order.
    """

    ids: np.ndarray
    labels: np.ndarray | None
    spans: tuple[Span, ...]

    @cached_property
    def span_types(self) -> np.ndarray:
        """`SpanKind` of every position, uint8 [T]."""
        types = np.zeros(len(self.ids), dtype=np.uint8)
        for span in self.spans:
            types[span.start : span.start + span.length] = span.kind
        return types


def _portions(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Runs of text pieces that are tokenised together; a media piece is a run by itself."""
    run: list[Piece] = []
    for piece in pieces:
        if run and (
            piece.media is not None or run[-1].media is not None or piece.bos or piece.portion != run[-1].portion
        ):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _label(run: Sequence[Piece], ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Labels of an answer: the tokens of header and tail are counted off, as the originals do."""
    trained = [place for place, piece in enumerate(run) if piece.trained]
    head = "".join(piece.text for piece in run[: trained[0]])
    tail = "".join(piece.text for piece in run[trained[-1] + 1 :])
    first = len(tokenizer.encode_array(head)) if head else 0
    last = len(ids) - (len(tokenizer.encode_array(tail)) if tail else 0)
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    labels[first:last] = ids[first:last]
    return labels


def render(
    conversation: Conversation,
    plans: Sequence[MediaPlan],
    template: Template,
    tokenizer: Tokenizer,
    *,
    train: bool,
    reference: bool = False,
    opening: str = "",
) -> Rendered:
    """Turns a conversation into ids, labels and spans.

    Args:
        conversation: A system turn or none, then user and assistant in turn; for inference it ends with the user.
        plans: One per picture or video, in the order of the placeholders.
        template: The model's chat template.
        tokenizer: The model's tokenizer.
        train: Give labels and close every turn, instead of opening an answer.
        reference: Be as lenient as the originals; for verification only.
        opening: For inference, the beginning of the answer, which the model goes on with.

    Returns:
        int64 arrays of one length T, and the spans, which satisfy the span law.

    Raises:
        PromptError: turns, placeholders, media, template and vocabulary do not fit together.
        RecordError: a sample without a trained token.
        ConfigError: the vocabulary lacks the template's context token.
    """
    pieces = render_pieces(conversation, plans, template, train=train, reference=reference, opening=opening)
    context = tokenizer.token_id(template.image_context) if plans else -1
    chunks: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    spans: list[Span] = []
    at = 0
    for run in _portions(pieces):
        first = run[0]
        if first.bos and tokenizer.bos_id is not None:
            chunks.append(np.array([tokenizer.bos_id], dtype=np.int64))
            if train:
                labels.append(np.array([IGNORED], dtype=np.int64))
            at += 1
        if first.media is not None:
            start = at
            for kind, length in first.spans:
                spans.append(Span(first.media, first.frame, at, length, kind))
                at += length
            ids = np.full(at - start, context, dtype=np.int64)
        else:
            text = first.text if len(run) == 1 else "".join([piece.text for piece in run])
            if not text:
                continue
            ids = tokenizer.encode_array(text)
            at += len(ids)
        chunks.append(ids)
        if train:
            if any(piece.trained for piece in run):
                labels.append(_label(run, ids, tokenizer))
            else:
                labels.append(np.full(len(ids), IGNORED, dtype=np.int64))
    whole = np.concatenate(chunks)
    targets = np.concatenate(labels) if train else None
    if not reference:
        if plans:
            places = int(np.count_nonzero(whole == context))
            tokens = sum(plan.tokens for plan in plans)
            if places != tokens or sum(span.length for span in spans) != tokens:
                raise PromptError(
                    f"{places} positions hold {template.image_context}, but the plans of {len(plans)} media ask for {tokens}; "
                    "a text encodes to the context token: remove it from the text"
                )
        if targets is not None and not np.any(targets != IGNORED):
            raise RecordError(f"none of the {len(whole)} tokens of the sample would be trained; drop the record")
    return Rendered(whole, targets, tuple(spans))


def context_check(rendered_length: int, max_new_tokens: int, max_positions: int) -> None:
    """Checks before a run that prompt and answer fit.

    Args:
        rendered_length: Tokens of the prompt.
        max_new_tokens: Most tokens of the answer.
        max_positions: Positions of the model.

    Raises:
        ContextError: they do not; says all numbers and what would fit.
    """
    total = rendered_length + max_new_tokens
    if total <= max_positions:
        return
    room = max_positions - rendered_length
    advice = (
        f"lower the new tokens to {room} or shorten the prompt"
        if room > 0
        else "shorten the prompt: fewer tiles or frames, or less history"
    )
    raise ContextError(
        f"the prompt takes {rendered_length} tokens and {max_new_tokens} new tokens were asked for: {total} together, but "
        f"the model has {max_positions} positions; {advice}"
    )
