"""MMMU and MMMU-Pro: micro accuracy over choices and short answers.

Rows hold either the parsed answer (``prediction``) or the raw one (``response``, with the options). Where the official
parser draws an option at random, the row is not judged, and counted: the score lies between the two bounds.

VLMEvalKit, whose figure InternVL reports, makes a choice of every open question (the right answer, or "Other Answers") and lets
a judge decide what its rules leave open: ``acc_vlmevalkit`` beside raw answers, with the recorded ``judge_letter``.
MMMU-Pro's printed figure is the mean of its settings (ten options; the question in the picture).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vedere.answers import Normal, kit_choice, mmmu_choice, mmmu_pro_choice, normal_forms, open_answers
from vedere.evals.records import Row, Scores, Verdict, by, mean

DOMAINS: dict[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
"""Domain -> its subjects, as the benchmark's files write them."""


def open_right(answers: Sequence[str], found: Sequence[Normal]) -> bool:
    """Say whether a gold text is contained in a found text, or a gold number equals a found one."""
    gold = [form for answer in answers for form in normal_forms(answer)]
    for one in found:
        if isinstance(one, str):
            if any(isinstance(form, str) and form in one for form in gold):
                return True
        elif one in gold:
            return True
    return False


def subject(identifier: str) -> str:
    """Return ``Art_Theory`` of ``validation_Art_Theory_12``."""
    return re.sub(r"^[a-z]+_|_\d+$", "", identifier)


def _judge(row: Row, raw: bool) -> Verdict:
    choice = row.text("question_type") == "multiple-choice"
    if not choice:
        given = row.answer("response") if raw else row.answer("prediction")
        found = open_answers(given) if raw else normal_forms(given)
        right = open_right(row.texts("answer"), found)
        return Verdict(line=row.line, credit=float(right), extracted=given[:200])
    if not raw:
        given = row.answer("prediction")
        return Verdict(line=row.line, credit=float(given in row.texts("answer")), extracted=given[:200])
    letter = mmmu_choice(row.answer("response"), _options(row))
    credit = None if letter is None else float(letter in row.texts("answer"))
    return Verdict(line=row.line, credit=credit, extracted=letter)


def _options(row: Row) -> dict[str, str]:
    options = row.data.get("index2ans")
    return {str(key): str(text) for key, text in options.items()} if isinstance(options, dict) else row.options()


def kit_options(row: Row) -> dict[str, str]:
    """Return a row's options as VLMEvalKit has them: an open question has two, the right answer and "Other Answers"."""
    if row.text("question_type") == "multiple-choice":
        return _options(row)
    answers = row.texts("answer")
    return {"A": answers[0] if len(answers) == 1 else str(answers), "B": "Other Answers"}


def _kit_right(row: Row) -> bool:
    letter = kit_choice(row.answer("response"), kit_options(row)) or row.data.get("judge_letter")
    return letter in (row.texts("answer") if row.text("question_type") == "multiple-choice" else ("A",))


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``id, question_type, answer`` with ``prediction`` (parsed) or ``response`` and ``index2ans`` (raw)."""
    said = ["response" in row.data for row in rows]
    raw = all(said) or (any(said) and not any("prediction" in row.data for row in rows))
    verdicts = [_judge(row, raw) for row in rows]
    right = _right(verdicts)
    fallback = sum(verdict.credit is None for verdict in verdicts)
    figures: dict[str, object] = {"n": len(rows)}
    if raw:
        figures |= {
            "correct_without_fallback": right,
            "random_fallback_items": fallback,
            "acc_bounds": [right / len(rows), (right + fallback) / len(rows)],
            "acc_vlmevalkit": mean(map(float, map(_kit_right, rows))),
        }
    else:
        figures |= {"correct": right, "acc": right / len(rows)}
    figures |= _parts(rows, verdicts)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": fallback})


def score_pro(rows: Sequence[Row]) -> Scores:
    """Score rows ``id, options, answer, response`` of MMMU-Pro; rows that need the random fallback count as wrong.

    With ``setting`` (such as standard-10 and vision) by setting, and their mean, which is the printed figure.
    """
    verdicts = []
    for row in rows:
        letter = mmmu_pro_choice(row.answer("response", "prediction"), row.options())
        credit = None if letter is None else float(letter == row.text("answer"))
        verdicts.append(Verdict(line=row.line, credit=credit, extracted=letter))
    right = _right(verdicts)
    fallback = sum(verdict.credit is None for verdict in verdicts)
    figures: dict[str, object] = {
        "n": len(rows),
        "correct": right,
        "acc": right / len(rows),
        "random_fallback_items": fallback,
        "acc_bounds": [right / len(rows), (right + fallback) / len(rows)],
        **_parts(rows, verdicts),
    }
    settings = {name: _right(found) / len(found) for name, found in by(rows, verdicts, "setting").items()}
    if settings:
        figures |= {"per_setting": settings, "mean_of_settings": mean(settings.values())}
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": fallback})


def _parts(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, dict[str, list[int]]]:
    """[right, rows] by subject and by domain; subjects that MMMU does not have are in no domain."""
    subjects = by([Row(row.line, {"subject": subject(row.text("id"))}) for row in rows], verdicts, "subject")
    counts = {name: [_right(subjects[name]), len(subjects[name])] for name in sorted(subjects)}
    domains = {}
    for domain, names in DOMAINS.items():
        if found := [counts[name] for name in names if name in counts]:
            domains[domain] = [sum(right for right, _ in found), sum(total for _, total in found)]
    return {"per_subject": counts, "per_domain": domains}


def _right(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.credit == 1 for verdict in verdicts)
