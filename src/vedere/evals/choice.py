"""Plain multiple choice: BLINK, MMStar, ScienceQA, SEED-Bench, AI2D, RealWorldQA, Q-Bench, MuirBench, MMT-Bench.

Most letters are read by VLMEvalKit's rules (`vedere.answers.kit_choice`); rows that these leave open, where that kit would ask
a judge model, count as wrong and are counted. BLINK, MMStar and SEED-Bench have rules of their own. Other
readings stand beside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vedere.answers import exact_match, first_choice, internvl_choice, kit_choice, leading_letter
from vedere.evals.records import Row, Scores, Verdict, by, credit, mean

_INSIDE = re.compile(
    r"(?:^|,\s*|\n\s*|(?i:options|choices):\s*)\(?([A-H])[:.)]\s*(.*?)(?=,\s*\(?[A-H][:.)]|\n\s*\(?[A-H][:.)]|$)",
    re.DOTALL,
)
_LETTER = re.compile(r"\s*\(?([A-Z])\)?\s*")
_SEED_CHOICES = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d"}
SEED_TYPES = (
    *("Scene Understanding", "Instance Identity", "Instance Attribute", "Instance Location", "Instance Counting"),
    *("Spatial Relation", "Instance Interaction", "Visual Reasoning", "Text Recognition"),
)
"""Names of SEED-Bench's image types 1 to 9."""


def options_in(row: Row) -> dict[str, str]:
    """Return a row's options, wherever they stand: own fields, ``choice_a`` ..., a text "A: ..., B: ...", or the question.

    Letters A to D with empty texts when nothing is found: answers are then read by their letters alone.
    """
    if row.has("choice_a"):
        return {letter: row.text(name) for letter, name in _SEED_CHOICES.items() if row.has(name)}
    if isinstance(row.data.get("options"), (list, dict)) or row.has("choices", "A"):
        return row.options()
    text = row.data.get("options") if row.has("options") else row.data.get("question")
    return inner_options(str(text or "")) or dict.fromkeys("ABCD", "")


def inner_options(text: str) -> dict[str, str]:
    """Return the options "A: ..., B: ..." or "A. ..." on lines of their own inside a text; none for fewer than two."""
    found = dict(_INSIDE.findall(text))
    return found if len(found) > 1 else {}


def judge(row: Row) -> Verdict:
    """Judge a row by VLMEvalKit's rules; where they leave it open, by the letter of a judge model (``judge_letter``).

    No credit (None) where neither says anything.
    """
    letter = kit_choice(row.answer(), options_in(row)) or row.data.get("judge_letter")
    right = row.text("answer").strip().strip("()")
    return Verdict(line=row.line, credit=None if letter is None else float(letter == right), extracted=letter)


def _open(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {"unresolved": sum(verdict.credit is None for verdict in verdicts)}


def bracketed_letter(text: str) -> str | None:
    """Return the letter of ``B`` or ``(B)``, or of the only such word in brackets; None without one or with several."""
    alone = _LETTER.fullmatch(text)
    if alone:
        return alone[1]
    found = {word[1] for word in text.split() if re.fullmatch(r"\([A-Z]\)", word)}
    return found.pop() if len(found) == 1 else None


def score_blink(rows: Sequence[Row]) -> Scores:
    """Score rows ``task, answer, prediction``: percent, mean of the tasks and over all rows.

    Published figures follow from ``prediction`` being the right letter in brackets, so "(C) Point C" is wrong; a bare letter is
    taken, as the official script puts it into brackets. Raw answers (``response`` or ``full_prediction`` alone) are read by
    `bracketed_letter`. What is no letter is wrong and counted; there that script asks a model.
    """
    verdicts = []
    for row in rows:
        raw = "prediction" not in row.data
        given = row.answer("response", "full_prediction", "prediction") if raw else row.answer("prediction")
        right = row.text("answer").strip()
        row.text("task")
        alone = _LETTER.fullmatch(given)
        read = bracketed_letter(given) if raw else alone and alone[1]
        verdicts.append(Verdict(line=row.line, credit=float(read == right.strip("()")), extracted=read))
    tasks = {name: 100 * credit(found) for name, found in by(rows, verdicts, "task").items()}
    figures = {"macro": mean(tasks.values()), "micro": 100 * credit(verdicts), "per_task": tasks}
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": sum(v.extracted is None for v in verdicts)})


def score_mmstar(rows: Sequence[Row]) -> Scores:
    """Score rows ``index, question, answer, category, prediction``: ratios over all rows and by category.

    The figures follow MMStar's own script (`leading_letter`); VLMEvalKit's reading stands beside them.
    """
    verdicts = []
    for row in rows:
        read, right = leading_letter(row.answer()), row.text("answer").strip().upper()
        verdicts.append(Verdict(line=row.line, credit=float(read == right), extracted=read))
    parts = {name: credit(found) for name, found in sorted(by(rows, verdicts, "category").items())}
    details = {name: credit(found) for name, found in sorted(by(rows, verdicts, "l2_category").items())}
    figures = {"n": len(rows), "acc": credit(verdicts), "per_category": parts, "per_l2_category": details}
    figures["acc_vlmevalkit"] = credit(judge(row) for row in rows)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": sum(v.extracted is None for v in verdicts)})


def score_scienceqa(rows: Sequence[Row]) -> Scores:
    """Score rows ``index, options, answer, prediction``.

    Rows that the rules leave open take the recorded judge verdict ``hit`` where there is one (0 or 1), else they are wrong; a
    row marked ``truncated`` takes ``rule_extracted``, because its prediction is not whole.
    """
    verdicts = []
    final = []
    for row in rows:
        verdict = judge(row)
        if row.data.get("truncated") and "rule_extracted" in row.data:
            read = row.data["rule_extracted"]
            held = None if read is None else float(read == row.text("answer"))
            verdict = Verdict(line=row.line, credit=held, extracted=read)
        verdicts.append(verdict)
        recorded = _hit(row) if row.has("hit") else 0.0
        final.append(recorded if verdict.credit is None else verdict.credit)
    figures = {
        "n": len(rows),
        "acc": mean(final),
        "rule_unresolved": _open(verdicts)["unresolved"],
        "acc_rules_only": credit(verdicts),
        "acc_newer_rules_only": mean(float(_newer(row) == row.text("answer").strip()) for row in rows),
    }
    return Scores(figures=figures, verdicts=verdicts, counts=_open(verdicts))


def _newer(row: Row) -> str | None:
    """The letter by the rules of newer versions of VLMEvalKit, one of which is not among the older ones."""
    return kit_choice(row.answer(), options_in(row), newer=True)


def _hit(row: Row) -> float:
    value = row.data["hit"]
    if value not in (0, 1):
        raise row.fail(f"'hit' is {value!r}", "0 or 1")
    return float(value)


def score_seed(rows: Sequence[Row]) -> Scores:
    """Score rows ``question_id, choice_a ... choice_d, answer, prediction`` of SEED-Bench, image questions alone.

    Video rows (``data_type`` video, a type from 10 on, or an id such as v12) are left out and counted.
    InternVL's rule is the figure; XComposer's (the first letter A to D) and VLMEvalKit's stand beside it.
    """
    images = [row for row in rows if _has_image(row)]
    verdicts = []
    for row in images:
        letter = internvl_choice(row.answer(), options_in(row))
        verdicts.append(Verdict(line=row.line, credit=float(letter == row.text("answer").strip()), extracted=letter))
    named = [Row(row.line, {"type": _seed_type(row)}) for row in images]
    figures = {
        "n": len(images),
        "acc": credit(verdicts),
        "per_type": {name: credit(found) for name, found in by(named, verdicts, "type").items()},
        "acc_first_letter": mean(float(first_choice(r.answer()) == r.text("answer").strip()) for r in images),
        "acc_vlmevalkit": credit(judge(row) for row in images),
    }
    counts = {"video_rows_left_out": len(rows) - len(images), "unresolved": sum(v.extracted is None for v in verdicts)}
    return Scores(figures=figures, verdicts=verdicts, counts=counts)


def _has_image(row: Row) -> bool:
    if row.has("data_type"):
        return row.text("data_type") == "image"
    if row.has("question_type_id"):
        return row.whole("question_type_id") <= len(SEED_TYPES)
    return not (row.has("question_id") and row.text("question_id").startswith("v"))


def _seed_type(row: Row) -> str | None:
    if row.has("question_type_id"):
        number = row.whole("question_type_id")
        return SEED_TYPES[number - 1] if 0 < number <= len(SEED_TYPES) else str(number)
    return row.text("category") if row.has("category") else None


def score_ai2d(rows: Sequence[Row]) -> Scores:
    """Score rows ``options, answer, prediction`` of AI2D by VLMEvalKit's rules.

    Beside it InternVL's exact match (case-insensitive; "A." is wrong there) and XComposer's first capital letter.
    """
    verdicts = [judge(row) for row in rows]
    answers = [(row.answer(), row.text("answer").strip()) for row in rows]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    figures = {
        "n": len(rows),
        "acc": credit(verdicts),
        "acc_exact": mean(float(given.strip().lower() == right.lower()) for given, right in answers),
        "acc_first_letter": mean(float(first_choice(given, letters) == right) for given, right in answers),
    }
    return Scores(figures=figures, verdicts=verdicts, counts=_open(verdicts))


_PARTS = ("category", "l2-category", "l2_category", "task", "type", "concern")


def score_plain(rows: Sequence[Row]) -> Scores:
    """Score rows ``options, answer, prediction`` of Q-Bench, MuirBench and MMT-Bench: ratios, over all rows and by field.

    VLMEvalKit's rules are the figure; the first capital letter stands beside it, as XComposer reads Q-Bench.
    """
    verdicts = [judge(row) for row in rows]
    firsts = [first_choice(row.answer(), options_in(row)) == row.text("answer").strip().strip("()") for row in rows]
    figures: dict[str, object] = {"n": len(rows), "acc": credit(verdicts), "acc_first_letter": mean(map(float, firsts))}
    for name in _PARTS:
        if groups := by(rows, verdicts, name):
            figures[f"per_{name.replace('-', '_')}"] = {part: credit(found) for part, found in sorted(groups.items())}
    return Scores(figures=figures, verdicts=verdicts, counts=_open(verdicts))


def score_realworldqa(rows: Sequence[Row]) -> Scores:
    """Score rows ``options, answer, prediction`` of RealWorldQA by VLMEvalKit's rules; rows without options by their text."""
    verdicts = [judge(row) if _has_options(row) else _worded(row) for row in rows]
    return Scores(figures={"n": len(rows), "acc": credit(verdicts)}, verdicts=verdicts, counts=_open(verdicts))


def _has_options(row: Row) -> bool:
    return row.has("options", "choices", "A") or row.text("answer").strip() in inner_options(row.text("question"))


def _worded(row: Row) -> Verdict:
    """A word or a number, in its normal form."""
    given = row.answer()
    return Verdict(line=row.line, credit=float(exact_match(given, row.text("answer"))), extracted=given[:200])
