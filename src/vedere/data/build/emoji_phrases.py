"""Names in sentences: "a crocodile", "an hourglass", "scissors", "popcorn", "three o'clock", and asking for them.

Cost: nothing.
"""

from __future__ import annotations

import re

from vedere.data.build.record import article

_AFTER_HEAD = re.compile(r" (?:of|with|in|on|behind|showing|without|tilted|pointed|over|at) ")
# fmt: off
_SINGULAR = {"rhinoceros", "fleur-de-lis", "tennis"}
_BARE_HEADS = {
    "popcorn", "rice", "salt", "butter", "bread", "garlic", "bacon", "spaghetti", "sushi", "oden", "broccoli", "coral", "sake",
    "wood", "yarn", "thread", "soap", "fire", "fog", "dna", "ice", "custard", "mate", "tennis", "bowling", "lacrosse",
    "badminton", "hockey", "pong", "food", "cooking", "camping", "money", "luggage", "root", "green",
}
_BARE = {
    "Aries", "Taurus", "Gemini", "Cancer", "Leo", "Virgo", "Libra", "Scorpio", "Sagittarius", "Capricorn", "Aquarius", "Pisces",
    "Ophiuchus", "information", "copyright", "registered", "trade mark", "construction", "building construction", "customs",
    "passport control", "baggage claim", "prohibited", "radioactive", "plus", "minus", "multiply", "divide", "infinity",
    "potable water", "non-potable water", "foggy", "locked", "unlocked", "locked with key", "locked with pen", "high voltage",
    "performing arts", "children crossing", "vibration mode", "mobile phone off", "pouring liquid", "mount fuji", "Tokyo tower",
    "om", "currency exchange", "airplane departure", "airplane arrival", "wireless",
}
_WITH_THE = {"Statue of Liberty", "milky way", "kaaba"}
# fmt: on
_SPOKEN_CONSONANT = re.compile(r"uni|ewe|euro|one|U")
_SPOKEN_VOWEL = re.compile(r"hour|x-ray|SOS|NG|8|F")


def _head(label: str) -> str:
    """Return the word that the others describe: "glass" of "glass of milk"."""
    return _AFTER_HEAD.split(label)[0].split(" ")[-1]


def is_plural(label: str) -> bool:
    """Say whether a name stands for several things: "grapes", "clinking glasses"."""
    head = _head(label)
    one = head in _SINGULAR or head.endswith(("ss", "us", "'s")) or label in _BARE or label.startswith("no ")
    return head.endswith("s") and not one


def phrase(label: str) -> str:
    """Return a name as it stands in a sentence."""
    if label in _WITH_THE:
        return f"the {label}"
    bare = label in _BARE or label.startswith("no ") or label.endswith(("o'clock", "-thirty"))
    if bare or is_plural(label) or _head(label) in _BARE_HEADS:
        return label
    if _SPOKEN_CONSONANT.match(label):
        return f"a {label}"
    return f"an {label}" if _SPOKEN_VOWEL.match(label) else article(label)


def question(label: str) -> str:
    """Return the yes-or-no question for a name."""
    return f"{'Are these' if is_plural(label) else 'Is this'} {phrase(label)}?"
