"""Option letters as the official scripts and harnesses read them, quirks included.

Scores are comparable only under the rule that made them, so these rules are not improved; `general.option_letter` is the
rule that people would want. No rule here draws at random: where a script would, the answer is None, and the caller counts it.
Sources: VLMEvalKit's matching, the evaluation scripts of MMMU and MMMU-Pro, InternVL's evaluation folder, XComposer's
notebooks, all as public descriptions give them.

Cost: linear in the answer's length for each option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NONE_OF_THEM = "Z"
"""What `kit_choice` returns for an answer that refuses, or that says Z."""
_API_FAILED = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SAID = re.compile(r"(?i)(?:correct )?answer is \**([ABCD])\**")
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def kit_choice(text: str, options: Mapping[str, str], *, newer: bool = False) -> str | None:
    """Return the option that VLMEvalKit's rules find before its judge model is asked.

    A letter counts as a whole token once ``. ( ) [ ] , : ; ! * # { }`` are blanks, if no other option's letter is one and
    it stands among the last four tokens; else the only option whose text is part of the answer, unless the answer is longer
    than twice all texts together.

    Args:
        text: the answer.
        options: letter -> text of the options that are there.
        newer: take the letter after "answer is" too, before texts are looked for, as newer versions do; in any case and
            without a look at what follows, so that "the answer is a dog" gives A.

    Returns:
        A key of `options`, "Z" for a refusal, or None where the judge would decide.
    """
    if _API_FAILED in text:
        return None
    if any(refusal in text for refusal in _REFUSALS):
        return NONE_OF_THEM
    tokens = text.translate(_MARKS).split()
    present = [letter for letter in options if letter in tokens]
    if len(present) == 1 and tokens.index(present[0]) > len(tokens) - 5:
        return present[0]
    if not present and NONE_OF_THEM in tokens:
        return NONE_OF_THEM
    said = _SAID.search(text) if newer else None
    if said is not None and said[1].upper() in options:
        return said[1].upper()
    lowered = text.lower()
    texts = {letter: str(option).lower() for letter, option in options.items()}
    if len(lowered) > 2 * sum(map(len, texts.values())):
        return None
    named = [letter for letter, option in texts.items() if option in lowered]
    return named[0] if len(named) == 1 else None


def internvl_choice(text: str, options: Mapping[str, str]) -> str | None:
    """Return the option by InternVL's rule: the first character if it is an option, else the first text that occurs.

    The original hands back the raw text otherwise, which equals no letter; here that is None.
    """
    stripped = text.strip()
    if stripped[:1] in options and stripped:
        return stripped[0]
    if len(stripped) == 1:
        return None
    return next((letter for letter, option in options.items() if option and str(option) in stripped), None)


def first_choice(text: str, letters: Iterable[str] = "ABCD") -> str | None:
    """Return the first character that is one of the letters, even inside a word (XComposer's notebooks)."""
    offered = frozenset(letters)
    return next((character for character in text if character in offered), None)


def mmmu_choice(response: str, options: Mapping[str, str]) -> str | None:
    """Return the option that MMMU's parser finds; None where it would draw one at random.

    Letters in brackets count first, then letters between blanks, then, in answers of more than five words, the texts of
    options (their case does not matter). Of several candidates the one whose last place is last wins.
    """
    text = _bare(response)
    return _latest(text, options, ("({})", " {} "))


def mmmu_pro_choice(response: str, options: Mapping[str, str]) -> str | None:
    """Return the option that MMMU-Pro's parser finds; None where it would draw one at random.

    The only option letter after the last ``Answer:`` wins; otherwise it goes on like `mmmu_choice`, but a letter before a blank
    or a period counts too, at the end of a word as well. Where several letters were found so, only places between two blanks
    are compared, so that letters without such a place tie and the first option wins.
    """
    _, told, rest = response.rpartition("Answer:")
    if told:
        named = [letter for letter in options if letter in rest]
        if len(named) == 1:
            return named[0]
    return _latest(_bare(response), options, ("({})", "{} ", "{}."))


def _bare(response: str) -> str:
    for mark in ",.!?;:'":
        response = response.strip(mark)
    return f" {response} "


def _latest(text: str, options: Mapping[str, str], forms: tuple[str, ...]) -> str | None:
    for form in forms:
        found = [letter for letter in options if form.format(letter) in text]
        if found:
            place = form if form == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(place.format(letter)))
    if len(text.split()) <= 5:
        return None
    lowered = text.lower()
    places = {letter: lowered.rfind(str(option).lower()) for letter, option in options.items()}
    found = [letter for letter in options if places[letter] >= 0]
    return max(found, key=places.__getitem__) if found else None


def leading_letter(text: str) -> str | None:
    """Return the letter where MMStar's script looks for it: first, after "(", after "option " or after "the answer is "."""
    lowered = text.lower().strip().replace("\n", " ")
    for lead in ("(", "option ", "the answer is ", ""):
        if lowered.startswith(lead) and lowered[len(lead) : len(lead) + 1] in set("abcdefgh"):
            return lowered[len(lead)].upper()
    return None
