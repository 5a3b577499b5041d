"""Yes, no, grades and signs as the official scripts read them, quirks included; `general.yes_no` is what people would want.

Sources: the scripts of MME, LLaVA's of POPE, XComposer's notebooks, VLMEvalKit, as public descriptions give them.

Cost: linear in the answer's length.
"""

from __future__ import annotations

import re
from typing import Literal

_YES_NO_MARKS = re.compile(r"""[;/\[\]"{}()=+\\_\-><@`,?!.:*#']""")
_GRADE = re.compile(r"\s*(?:grade\s*[:=]\s*)?\**\s*([01](?:\.\d+)?|\.\d+)(?![\d.,/])", re.IGNORECASE)


def first_four(text: str) -> Literal["yes", "no", "other"]:
    """Return the verdict of MME's own script: exactly yes or no, else "yes", then "no", within the first four characters."""
    lowered = text.lower()
    if lowered in ("yes", "no"):
        return "yes" if lowered == "yes" else "no"
    start = lowered[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


_IN_ENGLISH = (("不是", "No"), ("是", "Yes"), ("否", "No"))


def internvl_form(text: str) -> str:
    """Return an answer as InternVL hands it to MME's script: Chinese verdicts, true, false as yes, no; no other Chinese."""
    for chinese, english in _IN_ENGLISH:
        text = text.replace(chinese, english)
    text = text.lower().replace("true", "yes").replace("false", "no")
    return re.sub("[\u4e00-\u9fa5]", "", text)


def yes_inside(text: str) -> Literal["yes", "no"]:
    """Return XComposer's reading of HallusionBench: yes if the lower-cased answer holds these letters, otherwise no."""
    return "yes" if "yes" in text.lower() else "no"


def first_sentence(text: str) -> Literal["yes", "no"]:
    """Return LLaVA's reading: no if a word before the first period is No, not or no (commas deleted), otherwise yes."""
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def only_no(text: str) -> Literal["yes", "no"]:
    """Return XComposer's reading: no if the whole answer is ``no``, otherwise yes."""
    return "no" if text == "no" else "yes"


def kit_yes_no(text: str) -> Literal["yes", "no"] | None:
    """Return VLMEvalKit's reading: the one of the words yes and no that occurs, punctuation removed; None for both or none."""
    words = set(_YES_NO_MARKS.sub(" ", text.lower()).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


def unit_grade(text: str) -> float | None:
    """Return the grade from 0 to 1 that a judge's reply begins with, after ``Grade:`` or not; None without one."""
    found = _GRADE.match(text)
    grade = float(found[1]) if found else -1.0
    return grade if 0 <= grade <= 1 else None


def grade_pair(text: str) -> tuple[float, float] | None:
    """Return the two grades from 1 to 10 that make up the first line of a judge's reply; None without them."""
    first = (text.strip().splitlines() or [""])[0]
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*", first)
    if found is None:
        return None
    one, other = float(found[1]), float(found[2])
    return (one, other) if 1 <= one <= 10 and 1 <= other <= 10 else None


def signs(text: str) -> list[bool]:
    """Return the signs + (true) and - of an answer, in order, whichever dash stands for minus."""
    return [sign == "+" for sign in re.findall(r"[+\-−–]", text)]


def first_or_second(text: str) -> int | None:
    """Return 1 or 2, whichever stands alone first in an answer; None without either."""
    found = re.search(r"(?<!\d)([12])(?!\d)", text)
    return int(found[1]) if found else None
