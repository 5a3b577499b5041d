"""What a kind of the open corpus yields: pictures with everything that can be said about them.

A *kind* (scenes, words, drawings, ...) draws or reads pictures and states facts about each one. The same picture
serves all four stages of EViP (Mono-InternVL, arXiv:2410.08202, section 3.3, and 2507.12566): short labels for S1.1
(concept), one synthetic sentence for S1.2 (semantic), captions, text and places for S1.3 (alignment) and questions
with short answers for S2 (instruction). What differs from the paper: the facts come from the program that drew the
picture or from the source's annotations, not from a large captioning model, so they are exact.

Cost: nothing; plain data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from PIL import Image

from vedere.errors import RecordError

SIDE = 160
"""Side of a drawn picture of the corpus in pixels: one tile of `vedere-mini`, 25 visual tokens."""

Stage = Literal["concept", "semantic", "alignment", "instruction"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Split = Literal["train", "heldout"]

Medium = Literal["picture", "pictures", "video"]

# Phrasings stand in these lists as often as they should come up.
LABEL_PROMPTS = ("Label this picture.", "What is this?", "What is this?", "Name what you see.")
CAPTION_PROMPTS = ("Describe the picture.", "Describe the picture.", "What is in this picture?", "What do you see?")
PAIR_PROMPTS = ("Describe the pictures.", "What do the two pictures show?")
CLIP_PROMPTS = ("What happens in the video?", "What happens in the video?", "Describe the video.")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question about a picture and its answer.

    Attributes:
        question: as a person would ask it.
        answer: short.
        question_type: the skill it needs.
        facts: names of the facts that the answer tells (`vedere.data.build.turns` reads them); () if nobody wrote them
            down.
        given: names of the facts that the question itself tells.
    """

    question: str
    answer: str
    question_type: str
    facts: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A short film: RGB frames of one size, and how many of them are shown a second."""

    frames: tuple[Image.Image, ...]
    fps: int


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture, several pictures or a film, and what can be said about it.

    Attributes:
        image: RGB picture, 48 to 640 px a side.
        images: several such pictures instead of one.
        clip: a film instead of pictures.
        labels: short labels, best first in no order; one is drawn for S1.1.
        captions: one-sentence descriptions; one is drawn for S1.2.
        alignment: captions, text and places for S1.3; one is drawn.
        asks: questions for S2 in the order in which they should be used.
        key: identity of the thing shown in its source (a file, a drawer), "" for pictures made by the program.
        licence: SPDX-like name of the picture's licence.
        attribution: who has to be named, "" if nobody.
    """

    image: Image.Image | None = None
    images: tuple[Image.Image, ...] = ()
    clip: Clip | None = None
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    alignment: tuple[Ask, ...]
    asks: tuple[Ask, ...]
    key: str = ""
    licence: str = "CC0-1.0"
    attribution: str = ""

    def __post_init__(self) -> None:
        """Check that there is one thing to look at.

        Raises:
            RecordError: none or several of `image`, `images` and `clip` are given.
        """
        given = [name for name in ("image", "images", "clip") if getattr(self, name)]
        if len(given) != 1 or len(self.images) == 1:
            raise RecordError(
                f"an item has {' and '.join(given) or 'nothing to look at'}{' with one picture' * (len(self.images) == 1)}; "
                "give exactly one of image, images (two or more) and clip"
            )

    @property
    def medium(self) -> Medium:
        """What is shown."""
        return "video" if self.clip is not None else "pictures" if self.images else "picture"

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """Everything that is shown, in order: pictures, or the frames of the film."""
        if self.clip is not None:
            return self.clip.frames
        return self.images if self.image is None else (self.image,)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of pictures.

    Attributes:
        name: file name of its records.
        share: share of the corpus' instruction records (renormalised over the kinds that are built).
        per_picture: instruction records made of one training picture; above 1, further questions about a picture become
            records of their own.
        make: `make(split, count, seed, folder)` yields at most `count` items, deterministically in its arguments;
            kinds drawn by the program yield exactly `count`.
        folder: the folder it reads below the sources, None if it needs none.
        looks_for: files that must exist in the folder.
        independent: each picture is a function of (seed, split, index) alone, so that the builder may draw the kind in
            blocks with seeds of their own and in several processes; without it one process draws the whole kind.
        ready: fetches what the kind takes from public registries; raises `PackageError` or `ConfigError` saying why it
            cannot be had, and the kind is skipped for that reason.
        ledger: names of the entries of the ledger it draws on.
    """

    name: str
    share: float
    make: Callable[[Split, int, int, Path], Iterator[Item]]
    per_picture: float = 1.0
    folder: str | None = None
    looks_for: tuple[str, ...] = ()
    independent: bool = False
    ready: Callable[[], None] | None = None
    ledger: tuple[str, ...] = ("vedere",)


def stream(*parts: object) -> random.Random:
    """Return a generator of its own for one picture: independent of all others and of the order of making them."""
    return random.Random("/".join(str(part) for part in parts))


def article(noun: str) -> str:
    """Return the noun phrase with its indefinite article: "an orange star"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def weighted_order(rng: random.Random, options: Sequence[tuple[float, T]]) -> list[T]:
    """Shuffle so that heavy options tend to come first (Efraimidis-Spirakis keys u^(1/w)); weight 0 is left out."""
    keyed = [(rng.random() ** (1.0 / weight), index) for index, (weight, _) in enumerate(options) if weight > 0]
    return [options[index][1] for _, index in sorted(keyed, reverse=True)]


def captions_as_asks(captions: Sequence[str], rng: random.Random) -> tuple[Ask, ...]:
    """Turn captions into S1.3 records."""
    return tuple(
        Ask(question=rng.choice(CAPTION_PROMPTS), answer=caption, question_type="caption") for caption in captions
    )
