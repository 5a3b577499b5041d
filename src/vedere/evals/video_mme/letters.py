"""The letter in an answer: the official script's extraction with its quirks, and a corrected one beside it.

The official list of phrases lacks two commas, so "Best option: C" is read as the B of "Best"; it takes the first
capital A to D even inside a word ("Cannot tell" answers C). ``corrected`` reads with `vedere.answers.option_letter`,
which reads a letter only where one is clearly chosen. Both stand side by side in every table; the official one is the
figure.
"""

from __future__ import annotations

import functools

from vedere.answers import first_choice, option_letter

PHRASES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    "The best option isThe correct option is",
    *("Best answer:Best option:", "Answer:", "Option:", "The correct answer", "The correct option"),
)
"""What the official script deletes, in its order, with its two missing commas."""


@functools.lru_cache(maxsize=8192)
def official_letter(response: str) -> str:
    """Return the letter that the official script reads, or "" for a question that counts as not answered.

    Its test for more than ten words without a letter is left out: such an answer has no letter either way.
    """
    text = response.strip()
    for phrase in PHRASES:
        text = text.replace(phrase, "")
    return first_choice(text, "ABCD") or ""


@functools.lru_cache(maxsize=8192)
def corrected_letter(response: str) -> str:
    """Return the letter that is clearly chosen, or ""."""
    return option_letter(response) or ""
