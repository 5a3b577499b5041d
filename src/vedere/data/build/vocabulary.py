"""What is printed: words of an open list, numbers, and strings of letters; a tenth of the words is held out.

The list are whole English words among the pieces of SmolLM2's vocabulary (Apache-2.0), so what is read can be said: those
that COCO's captions or Shakespeare use, and longer ones that an ending or a plural in the vocabulary shows to be whole.
Whether a word is held out follows from its hash alone: every training, on any computer, leaves out the same ones.

Cost: one file of 100 kB, read once.
"""

from __future__ import annotations

import hashlib
import json
import random
from functools import lru_cache
from importlib.resources import files

from vedere.data.build.typefaces import Use

HELDOUT_SHARE = 10
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def is_heldout(word: str) -> bool:
    """Say whether a word, in whatever case, is kept out of training."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % HELDOUT_SHARE == 0


@lru_cache(maxsize=1)
def _everything() -> tuple[str, ...]:
    text = json.loads(files("vedere.data.build").joinpath("word_list.json").read_text("utf-8"))
    return tuple(text.split())


@lru_cache(maxsize=64)
def words(use: Use, shortest: int = 2, longest: int = 10) -> tuple[str, ...]:
    """Return the words of a split with so many letters, in small letters."""
    wanted = use == "heldout"
    return tuple(word for word in _everything() if shortest <= len(word) <= longest and is_heldout(word) == wanted)


def in_some_case(word: str, rng: random.Random) -> str:
    """Return the word in small letters, with one capital, or in capitals."""
    return rng.choices((word, word.capitalize(), word.upper()), weights=(45, 25, 30))[0]


def draw_word(use: Use, rng: random.Random, shortest: int = 2, longest: int = 10) -> str:
    """Draw a word; lengths are evened out, or long words would be most of them."""
    length = rng.randint(shortest, longest)
    return rng.choice(words(use, length, length))


def draw_letters(rng: random.Random, shortest: int = 2, longest: int = 8) -> str:
    """Draw a string of letters that is no held-out word: what it says cannot be guessed."""
    while True:
        text = "".join(rng.choices(_LETTERS, k=rng.randint(shortest, longest)))
        if not is_heldout(text):
            return text


def draw_number(rng: random.Random, shortest: int = 2, longest: int = 5) -> str:
    """Draw a number of so many digits, the first not 0."""
    digits = rng.randint(shortest, longest)
    return str(rng.randrange(10 ** (digits - 1), 10**digits))
