"""Rendered text: words, numbers, signs and short lines in about a hundred open typefaces, to be read as they are printed.

Pictures have many sizes and shapes, since users' pictures do, and a third of them are plain black on white. Held out are
typefaces (`typefaces.HELDOUT`), a tenth of the words and a tenth of the longer numbers (`vocabulary.is_heldout`): what is
asked there was neither seen in that type nor read before. Answers keep capitals and small letters; lines are joined by
spaces. Letters that equal digits (O, I) are left out as single characters.

Cost: about 3 ms a picture; typefaces are fetched once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vedere.data.build.canvas import COLOURS, GROUNDS, apart, shade
from vedere.data.build.lettering import Look, draw_look, draw_text, dress, legible_fill
from vedere.data.build.record import (
    CAPTION_PROMPTS,
    SIDE,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    stream,
    weighted_order,
)
from vedere.data.build.typefaces import ready, typefaces
from vedere.data.build.vocabulary import draw_number, draw_word, in_some_case, is_heldout

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
GROUPS = {"word": 50, "number": 16, "digit": 6, "letter": 5, "sign": 12, "lines": 11}
SIZES = (
    *((SIDE, SIDE),) * 5,
    (224, 224),
    (320, 96),
    (448, 128),
    (240, 160),
    (320, 200),
    (400, 300),
    (200, 100),
    (120, 200),
)
_FIRST = "What does the text say?"
_READ = ("What does the sign say?", "Read the text.", "What is written here?", "What does it say?")
_ASKS = {
    "digit": ("Which digit is shown?", "What digit is this?", "What number is this?"),
    "letter": ("Which letter is shown?", "What letter is this?"),
    "number": ("What number is this?", "Which number is shown?", "What number is this?", *_READ),
    "word": ("What word is this?", "What word is this?", "Which word is shown?", *_READ),
    "sign": _READ,
    "lines": _READ,
}
_INK_ASKS = ("What color is the text?", "What colour is the text?", "Which color do the letters have?")
_GROUND_ASKS = ("What color is the background?", "What colour is the background?")
_HELDOUT_DIGITS = 3  # shorter numbers are too few to hold some out
_SPELLING = {
    "spell": ("Spell the word.", "How is the word spelled?", "Spell what is written."),
    "first_letter": ("What is the first letter?", "Which letter does the word begin with?"),
    "count_letters": ("How many letters does the word have?", "How many letters are there?"),
}


@dataclass(frozen=True, kw_only=True)
class Print:
    """What a picture says.

    Attributes:
        group: one of `GROUPS`.
        lines: its lines.
    """

    group: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The answer: lines joined by spaces."""
        return " ".join(self.lines)

    @property
    def phrase(self) -> str:
        """What a caption calls it."""
        if self.group in ("word", "digit", "letter", "number"):
            return f"the {self.group} {self.text}" if self.group != "word" else f'the word "{self.text}"'
        return f'the text "{self.text}"'


def question_of(group: str, rng: random.Random) -> str:
    """Draw the question for what is printed; single characters are asked for by name more often."""
    first = 0.25 if group in ("digit", "letter") else 0.5
    return _FIRST if rng.random() < first else rng.choice(_ASKS[group])


def _number(split: Split, rng: random.Random) -> str:
    while True:
        text = draw_number(rng)
        if len(text) < _HELDOUT_DIGITS or is_heldout(text) == (split == "heldout"):
            return text


def spelling_asks(word: str, rng: random.Random) -> dict[str, Ask]:
    """Questions about the letters of one word, by question type; spelling is in small letters, like "h-a-r-b-o-r"."""
    answers = {"spell": "-".join(word.lower()), "first_letter": word[0], "count_letters": str(len(word))}
    return {
        kind: Ask(question=rng.choice(_SPELLING[kind]), answer=answer, question_type=kind, facts=("text",))
        for kind, answer in answers.items()
    }


def _several(split: Split, rng: random.Random, count: int) -> list[str]:
    """Words, now and then a number, all in the same manner of capitals."""
    manner = rng.choices((str, str.capitalize, str.upper), weights=(35, 25, 40))[0]
    words = [manner(draw_word(split, rng, 2, 8)) for _ in range(count)]
    if rng.random() < 0.2:
        words[-1] = _number(split, rng)
    return words


def draw_print(split: Split, rng: random.Random, group: str | None = None) -> Print:
    """Draw what a picture says, of any group or the named one."""
    group = group or rng.choices(list(GROUPS), weights=list(GROUPS.values()))[0]
    if group == "digit":
        return Print(group=group, lines=(str(rng.randrange(10)),))
    if group == "letter":
        return Print(group=group, lines=(rng.choice(LETTERS),))
    if group == "number":
        return Print(group=group, lines=(_number(split, rng),))
    if group == "word":
        return Print(group=group, lines=(in_some_case(draw_word(split, rng, 2, 10), rng),))
    if group == "sign":
        first, second = _several(split, rng, 2)
        beside = len(first) + len(second) < 12 and rng.random() < 0.5
        return Print(group=group, lines=(f"{first} {second}",) if beside else (first, second))
    words = _several(split, rng, rng.randint(3, 4))
    cut = rng.randint(1, 2)
    lines = [" ".join(part) for part in (words[:cut], words[cut:])]
    if max(map(len, lines)) > 16:
        lines = words[:3]
    ending = rng.choice(("", "", ".", "!", "?"))
    return Print(group=group, lines=(*lines[:-1], lines[-1] + ending))


def _other(split: Split, told: Print, rng: random.Random) -> str:
    """Another text of the same group and, for words, the same capitals."""
    while True:
        text = draw_print(split, rng, told.group).text
        text = text.upper() if told.text.isupper() else text
        if text.lower() != told.text.lower():
            return text


def _colours(rng: random.Random) -> tuple[Look, tuple[str, str] | None]:
    """A look, and the names of ink and ground if they have any: plain black on white for a third."""
    if rng.random() < 1 / 3:
        return Look(), ("black", "white")
    if rng.random() < 0.4:
        return draw_look(rng), None
    ink = rng.choice(list(COLOURS))
    ground = rng.choice([name for name in GROUNDS if apart(name, ink)])
    look = dress(Look(ink=shade(ink, rng), ground=shade(ground, rng)), rng)
    return replace(look, clutter=0), (ink, ground)


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` pictures of text."""
    faces = typefaces(split)
    for index in range(count):
        rng = stream(seed, "words", split, index)
        drawn, face = draw_print(split, rng), rng.choice(faces)
        if face.capitals:
            drawn = replace(drawn, lines=tuple(line.upper() for line in drawn.lines))
        look, names = _colours(rng)
        single = drawn.group in ("digit", "letter")
        fill = rng.uniform(0.35, 0.9) if single else legible_fill(drawn.lines, rng.uniform(0.5, 0.97))
        size = (SIDE, SIDE) if single else rng.choice(SIZES)
        image = draw_text(drawn.lines, face, size, rng, look=look, fill=fill, centred=rng.random() < 0.3).image
        text, phrase = drawn.text, drawn.phrase
        kind = f"read_{drawn.group}"
        reads = [
            Ask(question=question_of(drawn.group, rng), answer=text, question_type=kind, facts=("text",))
            for _ in range(2)
        ]
        told = text if rng.random() < 0.5 else _other(split, drawn, rng)
        named = {"digit": f"Is this the digit {told}?", "letter": f"Is this the letter {told}?"}
        check = Ask(
            question=named.get(drawn.group, f'Does it say "{told}"?'),
            answer="yes" if told == text else "no",
            question_type=f"check_{drawn.group}",
            facts=("text",),
        )
        seen = Ask(question=rng.choice(CAPTION_PROMPTS), answer=phrase, question_type="describe", facts=("text",))
        options = [(5.0, reads[0]), (0.4, check), (0.4, seen)]
        captions: tuple[str, ...] = (phrase,)
        if names is not None:
            ink, ground = names
            tint = Ask(question=rng.choice(_INK_ASKS), answer=ink, question_type="text_colour", facts=("ink",))
            back = Ask(
                question=rng.choice(_GROUND_ASKS), answer=ground, question_type="ground_colour", facts=("ground",)
            )
            options += [(0.4, tint), (0.2, back)]
            captions = (f"{phrase} in {ink} on {article(ground)} background", phrase)
        if drawn.group == "word":
            weights = {"spell": 0.5, "first_letter": 0.3, "count_letters": 0.2}
            options += [(weights[skill], ask) for skill, ask in spelling_asks(text, rng).items()]
        yield Item(
            image=image,
            labels=(text, phrase),
            captions=captions,
            alignment=(*captions_as_asks(captions[:1], rng), *reads, reads[0]),
            asks=tuple(weighted_order(rng, options)),
        )


KIND = Kind(
    name="words",
    share=0.24,
    make=make,
    independent=True,
    ready=ready,
    ledger=("vedere", "typefaces", "smollm2-words"),
)
