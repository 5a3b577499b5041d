"""MMBench, MMBench-CN and CCBench: a question is right only if it is right with its options in every rotation.

Passes of a question share ``g_index``, or ``index`` modulo a million. A pass that the rules leave open (where the official
script asks a judge model) makes its question wrong, as in the script's exact-matching mode; such questions are counted, and
the score with all of them right is the upper bound. The vanilla figure looks at pass 0 alone and must not be mixed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vedere.evals.choice import judge
from vedere.evals.records import Row, Scores, Verdict, mean

PASS = 1_000_000
"""Distance of indices between two passes of a question."""
Group = list[tuple[Row, Verdict]]


def rotations(options: Mapping[str, str], answer: str) -> list[tuple[dict[str, str], str]]:
    """Return the options and answer letter of every pass: pass k shows the text of option i at letter i + k.

    Args:
        options: letter -> text, letters in order.
        answer: the right letter.
    """
    letters, texts = list(options), list(options.values())
    count = len(letters)
    passes = []
    for k in range(count):
        moved = {letters[(i + k) % count]: texts[i] for i in range(count)}
        passes.append(({letter: moved[letter] for letter in letters}, letters[(letters.index(answer) + k) % count]))
    return passes


def _index(row: Row) -> tuple[int, int]:
    """Question and pass of a row."""
    number = row.whole("index")
    if number < 0:
        raise row.fail(f"'index' is {number}", "a whole number from 0 on: question + pass x 1,000,000")
    group = row.whole("g_index") if row.has("g_index") else number % PASS
    return group, number // PASS


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``index, A ... D, answer, prediction`` and, for the tables, ``category, l2-category, split``.

    Raises:
        RecordError: for a question without pass 0, whose category all passes take.
    """
    groups: dict[int, Group] = {}
    verdicts = []
    for row in rows:
        verdicts.append(judge(row))
        groups.setdefault(_index(row)[0], []).append((row, verdicts[-1]))
    firsts, short = [], 0
    for group in groups.values():
        group.sort(key=lambda one: _index(one[0])[1])
        if _index(group[0][0])[1]:
            raise group[0][0].fail("its question has no pass 0", "all passes of a question in the file")
        firsts.append(group[0][0])
        short += len(group) < len(group[0][0].options())
    whole = [_worth(group) for group in groups.values()]
    figures: dict[str, object] = {
        "n": len(groups),
        "rows": len(rows),
        "acc": mean(map(float, (right for right, _ in whole))),
        "acc_upper_bound": mean(float(right or undecided) for right, undecided in whole),
        "vanilla_acc": mean(group[0][1].credit or 0.0 for group in groups.values()),
    }
    for name, field in (("split", "split"), ("l2_category", "l2-category"), ("category", "category")):
        parts: dict[str, list[float]] = {}
        for row, (right, _) in zip(firsts, whole, strict=True):
            if row.has(field, name):
                parts.setdefault(row.text(field, name), []).append(float(right))
        figures[f"per_{name}"] = {part: mean(found) for part, found in sorted(parts.items())}
    counts = {
        "unresolved": sum(verdict.credit is None for verdict in verdicts),
        "undecided_questions": sum(undecided for _, undecided in whole),
        "questions_with_fewer_passes_than_options": short,
    }
    return Scores(figures=figures, verdicts=verdicts, counts=counts)


def _worth(group: Group) -> tuple[bool, bool]:
    """(right, undecided): a wrong pass settles a question."""
    credits = [verdict.credit for _, verdict in group]
    return all(one == 1 for one in credits), None in credits and 0 not in credits
