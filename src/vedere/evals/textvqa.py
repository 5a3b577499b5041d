"""TextVQA: soft accuracy against ten human answers, under two normal forms in circulation.

M4C's form (InternVL, LLaVA) tokenises words first and deletes most periods; VLMEvalKit's current one does not tokenise and
keeps a period next to a digit. In both at most 32 periods are deleted, because the originals pass a flag as a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vedere.evals.records import Row, Scores, Verdict, mean

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"(\d),(\d)")
_M4C_PERIOD = re.compile(r"(?!<=\d)\.(?!\d)")
_KIT_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_PERIODS = int(re.UNICODE)
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_WHOLE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's I'm I've "
    "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd "
    "they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd "
    "who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've "
    "couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've "
    "there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've"
)


def _contractions() -> dict[str, str]:
    """Forms that lack an apostrophe, or one of two, to the whole form; and the original list's odd entries."""
    table = {}
    for whole in _WHOLE.split():
        pieces = whole.split("'")
        for gap in range(1, len(pieces)):
            short = "'".join(pieces[:gap]) + "'".join(pieces[gap:])
            table[short] = whole
    return table | {"somebody'd": "somebodyd"} | dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at")


_SHORT = _contractions()


def _punctuation(text: str, period: re.Pattern[str]) -> str:
    out = text
    grouped = _COMMA.search(text) is not None
    for mark in _MARKS:
        if mark not in text:
            continue
        touching = f"{mark} " in text or f" {mark}" in text or grouped
        out = out.replace(mark, "" if touching else " ")
    return period.sub("", out, count=_PERIODS)


def _words(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_SHORT.get(word, word) for word in words if word not in ("a", "an", "the"))


def m4c_form(text: str) -> str:
    """Return M4C's normal form."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(_punctuation(text.replace("\n", " ").replace("\t", " ").strip(), _M4C_PERIOD))


def kit_form(text: str) -> str:
    """Return VLMEvalKit's normal form."""
    return _words(_punctuation(text.replace("\n", " ").replace("\t", " ").strip(), _KIT_PERIOD))


def soft_score(prediction: str, answers: Sequence[str], form: Callable[[str], str]) -> float:
    """Return the mean over annotators of min(1, a third of the others who gave this answer): 0.3, 0.6, 0.9, 1 of ten."""
    given = form(prediction)
    equal = {answer: form(answer) == given for answer in set(answers)}
    same = [equal[answer] for answer in answers]
    return mean(min(1.0, (sum(same) - one) / 3) for one in same)


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``id, question, answers, prediction``: percent under both forms."""
    verdicts = []
    m4c = []
    for row in rows:
        given, answers = row.answer(), row.texts("answers")
        verdicts.append(Verdict(line=row.line, credit=soft_score(given, answers, kit_form)))
        m4c.append(soft_score(given, answers, m4c_form))
    figures = {
        "n": len(rows),
        "acc_vlmevalkit_norm": 100 * mean(verdict.credit or 0 for verdict in verdicts),
        "acc_m4c_norm": 100 * mean(m4c),
    }
    other = sum(len(row.texts("answers")) != 10 for row in rows)
    return Scores(figures=figures, verdicts=verdicts, counts={"rows_without_ten_answers": other})
