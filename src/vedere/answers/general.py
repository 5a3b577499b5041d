"""Answers out of free text: normal form, exact match, yes or no, option letters, numbers. Pure, with versioned rules.

Scores are comparable only where the rules are the same, so every result file names `ANSWER_RULES_VERSION`; a change of
any rule below raises it. The rules are our own; they agree in spirit with the normalisation of VQA v2 (lower case, no
punctuation, no articles, digits for small number words) and differ where that one destroys answers: an article is kept
when no word follows it (the letter "A" is an answer), and decimal points stay.

Cost: microseconds an answer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

ANSWER_RULES_VERSION = 2
"""2: Chinese verdicts and options; letters next to Chinese text."""

NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
_LATIN = (
    r"a-zA-Z0-9_\u00aa-\u02af\u0370-\u1fff"  # word characters of alphabets; Chinese stands next to a letter unspaced
)
_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = "0123456789"
_YES = frozenset(("yes", "yeah", "yep", "true", "correct"))
_NO = frozenset(("no", "nope", "not", "false", "incorrect"))
_CHINESE_NO = ("不", "否", "没", "错")
_CHINESE_YES = ("是", "对", "有", "正确")
_NUMBER = re.compile(
    r"(?<![\w.])-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![0-9])|(?<![\w.])-?\.[0-9]+(?![0-9])"
)


def _normalise_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    text = re.sub(r"['’`]", "", text)
    kept = []
    for index, character in enumerate(text):
        before = text[index - 1 : index] if index else ""
        after = text[index + 1 : index + 2]
        point = character == "." and before in _DIGITS and after in _DIGITS
        minus = character in "-−" and after in _DIGITS and not _is_word(before)
        if _is_word(character) or (point and before and after):
            kept.append(character)
        else:
            kept.append(" -" if minus and after else " ")
    words = "".join(kept).split()
    words = [word for index, word in enumerate(words) if word not in _ARTICLES or index == len(words) - 1]
    return " ".join(str(NUMBER_WORDS.get(word, word)) for word in words)


def _is_word(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] in "LNM"


def normalise(text: str) -> str:
    """Return the normal form of an answer.

    Compatibility forms folded, lower case, punctuation to spaces (apostrophes and thousands commas vanish, decimal
    points and leading minus signs stay), articles before another word dropped, "zero" to "twelve" as digits, single
    spaces. Applied until nothing changes, so it is idempotent.
    """
    previous = None
    while text != previous:
        previous, text = text, _normalise_once(text)
    return text


def exact_match(prediction: str, target: str) -> bool:
    """Say whether two answers have the same normal form (answers of punctuation only are compared as they are)."""
    left, right = normalise(prediction), normalise(target)
    return left == right if left or right else prediction.strip() == target.strip()


def yes_no(text: str) -> Literal["yes", "no"] | None:
    """Return the verdict of an answer: its first word, else the only side that is named, else None.

    "true" and "correct" count as yes, "false", "incorrect" and "not" as no. Chinese answers are read by how they begin.
    """
    words = normalise(text).split()
    if not words:
        return None
    if words[0].startswith(_CHINESE_NO):
        return "no"
    if words[0].startswith(_CHINESE_YES):
        return "yes"
    if words[0] in _YES:
        return "yes"
    if words[0] in _NO:
        return "no"
    yes, no = any(word in _YES for word in words), any(word in _NO for word in words)
    if yes == no:
        return None
    return "yes" if yes else "no"


def option_letter(text: str, options: str = "ABCD") -> str | None:
    r"""Return the option an answer chooses, or None if it does not choose clearly.

    In this order: a boxed letter (`\boxed{B}`, the last one); "answer is B" / "option B" / "choice: (B)" (the last one);
    an answer that is or begins with the letter and a delimiter ("B", "(B)", "B. a cat", "B: ..."); exactly one
    parenthesised letter "(B)" in the text; exactly one capital letter standing alone
    (not the article of "A cat", nor the "I" of "I think").

    Args:
        text: the answer.
        options: the capital letters that are offered.

    Raises:
        ValueError: when `options` is empty or holds anything but distinct capital ASCII letters.
    """
    if not options or not re.fullmatch("[A-Z]+", options) or len(set(options)) != len(options):
        raise ValueError(f"options must be distinct capital letters such as 'ABCD', not {options!r}")
    one = f"[{options}{options.lower()}]"
    big = f"[{options}]"
    boxed: list[str] = re.findall(rf"\\boxed\{{\s*(?:\\text\{{)?\(?({one})\)?\}}?\s*\}}", text)
    if boxed:
        return boxed[-1].upper()
    lead = r"(?:(?i:\b(?:answer|option|choice)(?:\s+is)?)|(?:答案|选项|选择|应选|故选|选)(?:是|为)?)\s*[:：=]?\s*\**"
    told: list[str] = re.findall(rf"{lead}(?:\(({one})\)|({big})(?![{_LATIN}'’]))", text)
    if told:
        return "".join(told[-1]).upper()
    stripped = text.strip().strip("*")
    opening = re.match(rf"(?:\(({one})\)|({one})(?:[.):,．。：，、）]|\s*$))", stripped)
    if opening:
        return (opening.group(1) or opening.group(2)).upper()
    for pattern in (rf"\(({big})\)", rf"(?<![{_LATIN}'’])(?![AI]\s+[a-z])({big})(?![{_LATIN}'’])"):
        found = set(re.findall(pattern, text))
        if len(found) == 1:
            return str(found.pop())
        if found:
            return None
    return None


def first_number(text: str) -> float | None:
    """Return the first number of a text, written in digits ("1,000", "-2.5") or as a word up to twelve; None without one."""
    digits = _NUMBER.search(text)
    word = re.search(rf"(?i)(?<![\w-])({'|'.join(NUMBER_WORDS)})(?![\w-])", text)
    if digits and (word is None or digits.start() < word.start()):
        return float(digits.group().replace(",", ""))
    return float(NUMBER_WORDS[word.group().lower()]) if word else None
