"""Reward and critic benchmarks: RM-Bench, VL-RewardBench, VisualProcessBench."""

from __future__ import annotations

from collections.abc import Sequence

from vedere.evals.records import Row, Scores, Verdict, by, credit, mean

STEP_THRESHOLD = 0.85
"""A step whose score is at least this counts as right (VisualPRM on VisualProcessBench)."""


def score_rm_bench(rows: Sequence[Row]) -> Scores:
    """Score rows ``score_chosen`` and ``score_rejected``, three styles each (concise, detailed plain, detailed markdown).

    The share of chosen over rejected for each of the nine pairs of styles; easy is the mean where the chosen one has the
    richer style, normal where both have the same, hard where the rejected one has it.
    """
    wins = [[0.0] * 3 for _ in range(3)]
    verdicts = []
    for row in rows:
        chosen, rejected = row.numbers("score_chosen", count=3), row.numbers("score_rejected", count=3)
        won = [[float(one > other) for other in rejected] for one in chosen]
        wins = [[total + one for total, one in zip(*pair, strict=True)] for pair in zip(wins, won, strict=True)]
        verdicts.append(Verdict(line=row.line, credit=mean(map(mean, won))))
    cells = {(i, j): wins[i][j] / len(rows) for i in range(3) for j in range(3)}
    figures = {
        "easy": mean(share for (i, j), share in cells.items() if i > j),
        "normal": mean(share for (i, j), share in cells.items() if i == j),
        "hard": mean(share for (i, j), share in cells.items() if i < j),
        "overall": mean(cells.values()),
        "n": len(rows),
    }
    return Scores(figures=figures, verdicts=verdicts)


def score_vl_rewardbench(rows: Sequence[Row]) -> Scores:
    """Score rows ``group, correct`` (0 or 1): overall by rows, each group, and the mean of the groups."""
    verdicts = []
    for row in rows:
        value = float(row.get("correct")) if isinstance(row.get("correct"), bool) else row.number("correct")
        if value not in (0, 1):
            raise row.fail(f"'correct' is {value:g}", "0 or 1")
        row.text("group")
        verdicts.append(Verdict(line=row.line, credit=value))
    groups = {name: credit(found) for name, found in by(rows, verdicts, "group").items()}
    figures = {"overall": credit(verdicts), **groups, "macro": mean(groups.values())}
    return Scores(figures=figures, verdicts=verdicts)


def score_visual_process(rows: Sequence[Row]) -> Scores:
    """Score rows ``labels`` (1 right, -1 wrong, 0 neutral and left out) and ``scores`` or ``prediction``, one a step.

    ``scores`` are probabilities of a right step, cut at `STEP_THRESHOLD`; ``prediction`` holds labels. The figure is the
    macro F1 over all steps (mean of the F1 of right and of wrong steps), overall and by ``source``.
    """
    verdicts = []
    steps: dict[str, list[tuple[bool, bool]]] = {"": []}
    neutral = 0
    for row in rows:
        inner = row.data.get("response")  # the release keeps steps and labels there
        labels = (Row(row.line, inner) if isinstance(inner, dict) else row).numbers("labels", "process_correctness")
        scored = row.has("scores")
        given = row.numbers("scores" if scored else "prediction", count=len(labels))
        if not set(labels) <= {1, 0, -1}:
            raise row.fail(f"'labels' is {labels}", "1 (right), -1 (wrong) or 0 (neutral) for each step")
        if scored and not all(0 <= one <= 1 for one in given):
            raise row.fail(f"'scores' is {given}", "probabilities from 0 to 1")
        read = [one >= STEP_THRESHOLD if scored else one > 0 for one in given]
        pairs = [(label > 0, said) for label, said in zip(labels, read, strict=True) if label]
        neutral += len(labels) - len(pairs)
        for name in {"", row.text("source", "data_source") if row.has("source", "data_source") else ""}:
            steps.setdefault(name, []).extend(pairs)
        verdicts.append(Verdict(line=row.line, credit=mean(float(label == said) for label, said in pairs)))
    everything = steps.pop("")
    figures = {
        "n": len(rows),
        "steps": len(everything),
        "macro_f1": 100 * macro_f1(everything),
        "micro_acc": 100 * mean(float(label == said) for label, said in everything),
        "per_source": {name: 100 * macro_f1(pairs) for name, pairs in steps.items()},
    }
    return Scores(figures=figures, verdicts=verdicts, counts={"neutral_steps": neutral})


def macro_f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Return the mean of the F1 of both classes of (truth, said); a class that neither side has counts 0."""
    total = 0.0
    for side in (True, False):
        hit = sum(truth == said == side for truth, said in pairs)
        named = sum((truth == side) + (said == side) for truth, said in pairs)
        total += 2 * hit / named if named else 0.0
    return total / 2
