"""Conversations, and chat templates as data (`templates.json`).

A template is a set of strings and a few switches; no template language is run. Sources: internvl2_5 (InternVL2.5 and 3,
arXiv 2412.05271, 2504.10479), internlm2-chat / Hermes-2 / phi3-chat (InternVL 1.5 and 2, Mono-InternVL, 2404.16821,
2410.08202), ixc2 (XComposer2, 4KHD, 2.5: 2404.06512, 2407.03320), ixc1 (XComposer, 2309.15112) and smollm2, the ChatML
of SmolLM2-Instruct extended by media.

smollm2 has no vocabulary for media and its rows stay frozen, so three reserved strings serve as markers. They were
chosen by looking at the embedding table: the rows of ids 7 to 16 hold one and the same vector, at cosine 0.99 from
``<|im_end|>`` (they were never trained), so a marker from there would read as an end of turn.

* ``<repo_name>`` (3) opens and ``<reponame>`` (4) closes a picture: trained rows (cosine 0.93 and 0.95 to the end of
  turn) that do not occur in chat. ``<filename>`` (6) is trained best, but people type it.
* ``<empty_output>`` (16) fills the media positions: its row is never read, as features take its place.

The system message names no camera and the bare language model must stay itself without media, so smollm2 writes its
system block only where there are none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from vedere.config import nearest
from vedere.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vedere.text.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]
_ROLES = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: ``system`` (first turn only), ``user`` or ``assistant``.
        content: Text; in user turns ``<image>`` and ``<video>`` stand for media, in order.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        """Checks the kinds of values.

        Raises:
            PromptError: another role, content that is not text, or text with half of a surrogate pair.
        """
        if self.role not in _ROLES:
            raise PromptError(
                f"a turn has role {self.role!r}{nearest(str(self.role), _ROLES)}; expected one of {_ROLES}"
            )
        if not isinstance(self.content, str):
            raise PromptError(
                f"a {self.role} turn has content of type {type(self.content).__name__}; expected a string"
            )
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text of a {self.role} turn holds half of a surrogate pair at character {error.start}; "
                "expected whole characters: decode the text again"
            ) from None


Conversation = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    r"""How turns become one text.

    A closed turn is header + text + end; the prompt ends with an open ``assistant_header``. In training an answer and
    its ``answer_end`` are targets, ``after_answer`` is not. The bos is the tokenizer's (`Tokenizer.bos_id`), once, in
    front.

    Attributes:
        name: What `get_template` finds it by.
        system: System message when the conversation brings none; None writes no system block.
        system_with_media: The same for conversations with media.
        system_header: Opens the system block.
        system_end: Closes it.
        user_header: Opens a user turn.
        user_end: Closes it.
        assistant_header: Opens an answer.
        answer_end: Closes an answer; a target in training.
        after_answer: Follows ``answer_end`` without being a target.
        stop: Generation stops at these, where the vocabulary has them.
        turn_markers: Strings that only the template may write; refused inside texts.
        image_start: Written before the positions of a picture or frame.
        image_context: The token that fills these positions.
        image_end: Written after them.
        new_tokens: What training adds to a vocabulary that lacks it, in the released order of ids.
        frame_prefix: Written before each frame of a video, ``{i}`` counting from 1.
        frame_prefix_training: The same in training, where the published recipe differs.
        untagged: What is put in front, once per picture, when pictures come without any placeholder.
        untagged_in_front: It goes in front of the whole prompt instead of the first user text.
        strip_training: White space around each text is dropped in training.
        strip_after_media: White space behind a picture is dropped in training: the first XComposer's data have a line break
            behind ``<image>``, its prompts have none.
        grain: What is tokenised in one go of a prompt to answer: a turn, all between media, or header and text apart. In
            training it is a turn or less.
        unclosed_empty_answer: The original writes no end after an empty answer (`reference` mode only).
        bare_history: Finished turns keep neither system block nor end markers; each gets a bos of its own, and so does
            its answer (XComposer's stored history).
    """

    name: str
    system: str | None
    system_with_media: str | None
    system_header: str
    system_end: str
    user_header: str
    user_end: str
    assistant_header: str
    answer_end: str
    after_answer: str
    stop: tuple[str, ...]
    turn_markers: tuple[str, ...]
    image_start: str
    image_context: str
    image_end: str
    frame_prefix: str
    frame_prefix_training: str
    untagged: str
    new_tokens: tuple[str, ...] = ()
    untagged_in_front: bool = False
    strip_training: bool = False
    strip_after_media: bool = False
    grain: Literal["turn", "prompt", "part"] = "turn"
    unclosed_empty_answer: bool = False
    bare_history: bool = False

    @cached_property
    def reserved(self) -> re.Pattern[str]:
        """Matches every string that must not stand inside a turn's text."""
        strings = {self.image_start, self.image_context, self.image_end, *self.turn_markers} - {""}
        return re.compile("|".join(map(re.escape, sorted(strings, key=len, reverse=True))))

    def check_markers(self, tokenizer: Tokenizer) -> None:
        """Checks that every marker that the template writes is one token, as its models know it.

        Raises:
            ConfigError: names those that are not.
        """
        markers = (*self.turn_markers, self.image_start, self.image_context, self.image_end)
        lacking = tokenizer.lacks([text for text in markers if text])
        if lacking:
            raise ConfigError(
                f"template '{self.name}' writes {', '.join(lacking)}, which this vocabulary of {tokenizer.vocab_size} tokens "
                "splits; choose the template that belongs to the language model, or its chat release, with all files of its "
                "tokenizer (tokenizer_config.json names such tokens)"
            )

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids at which generation stops: those of ``stop`` that the vocabulary has.

        Raises:
            ConfigError: the vocabulary has none of them.
        """
        # By name: some tokenizers write a space in front of a lone token (Phi-3).
        found = [tokenizer.token_id(text) for text in self.stop if not tokenizer.lacks([text])]
        if not found:
            raise ConfigError(
                f"template '{self.name}' stops at {' or '.join(self.stop)}, but the vocabulary of "
                f"{tokenizer.vocab_size} tokens has none of them; choose the template that the model was trained with"
            )
        return tuple(dict.fromkeys(found))


def _read_templates() -> Mapping[str, Template]:
    text = resources.files("vedere.text").joinpath("templates.json").read_text(encoding="utf-8")
    templates = {}
    for entry in json.loads(text):
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        templates[entry["name"]] = Template(**values)
    return MappingProxyType(templates)


TEMPLATES: Mapping[str, Template] = _read_templates()


def get_template(name: str) -> Template:
    """The template of that name.

    Raises:
        ConfigError: no such template; names the nearest.
    """
    if name not in TEMPLATES:
        raise ConfigError(
            f"unknown chat template '{name}'{nearest(name, TEMPLATES)} (templates: {', '.join(sorted(TEMPLATES))})"
        )
    return TEMPLATES[name]
