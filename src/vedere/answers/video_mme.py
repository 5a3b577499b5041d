"""The letter in an answer to Video-MME: the official scripts' extractions with their quirks, and a corrected one.

The official list of phrases lacks two commas, so "Best option: C" is read as the B of "Best"; it takes the first
capital A to D even inside a word ("Cannot tell" answers C). The corrected reading is `vedere.answers.general.option_letter`,
which reads a letter only where one is clearly chosen. Both stand side by side in every table; the official one is the figure.
Video-MME-v2's script has the commas and eight letters. Sources: the scripts of arXiv 2405.21075 and 2604.05015, as public
descriptions give them.

Cost: a pass over the answer for each phrase; answers that come again are remembered.
"""

from __future__ import annotations

import functools

from vedere.answers.choices import first_choice
from vedere.answers.general import option_letter

VIDEO_MME_PHRASES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    "The best option isThe correct option is",
    *("Best answer:Best option:", "Answer:", "Option:", "The correct answer", "The correct option"),
)
"""What the official script deletes, in its order, with its two missing commas."""
VIDEO_MME_V2_PHRASES = (
    *("Final Answer:", "The best answer is", "The correct answer is", "The answer is", "The answer"),
    *("The best option is", "The correct option is", "Best answer:", "Best option:", "Answer:", "Option:"),
    *("The correct answer", "The correct option"),
)
"""What version 2 deletes: version 1's list with its commas, and one more in front."""


@functools.lru_cache(maxsize=8192)
def video_mme_letter(response: str) -> str:
    """Return the letter that the official script reads, or "" for a question that counts as not answered.

    Its test for more than ten words without a letter is left out: such an answer has no letter either way.
    """
    return _first(response, VIDEO_MME_PHRASES, "ABCD")


@functools.lru_cache(maxsize=8192)
def video_mme_corrected(response: str) -> str:
    """Return the letter that is clearly chosen, or ""."""
    return option_letter(response) or ""


def video_mme_v2_letter(response: str) -> str:
    """Return the letter A to H that version 2 reads, or ""."""
    return _first(response, VIDEO_MME_V2_PHRASES, "ABCDEFGH")


def _first(response: str, phrases: tuple[str, ...], letters: str) -> str:
    text = response.strip()
    for phrase in phrases:
        text = text.replace(phrase, "")
    return first_choice(text, letters) or ""
