"""Names of benchmarks and what scores them. ``score_file`` is what ``vedere score`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vedere.config import nearest
from vedere.errors import ConfigError, RecordError
from vedere.evals import (
    choice,
    circular,
    document,
    hallusionbench,
    judged,
    mathvista,
    mme,
    mmmu,
    ocr,
    open_scoring,
    pope,
    refcoco,
    reward,
    textvqa,
    video_mme,
)
from vedere.evals.records import Row, Scores, read_rows, without_repeats
from vedere.evals.video_mme import v2
from vedere.evals.video_mme.results import result_rows

SCORING_RULES_VERSION = 3
"""Raised with any change of a rule under ``vedere.evals``; scores of different versions are not comparable.

3: option A behind "Options:" in a question; RealWorldQA's answers in words; a judge's verdicts on HallusionBench.
"""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's scorer, the fields that its rows have, and what reads them from a file."""

    score: Callable[[Sequence[Row]], Scores]
    fields: str
    read: Callable[[Path], list[Row]] = read_rows


BENCHMARKS: dict[str, Benchmark] = {
    "mme": Benchmark(mme.score, "category, image, question, answer, prediction"),
    "mmmu": Benchmark(mmmu.score, "id, question_type, answer, prediction (or index2ans, response)"),
    "mmmu-pro": Benchmark(mmmu.score_pro, "id, options, answer, response"),
    "mmvet": Benchmark(judged.score_mmvet, "id, scores, [capability]"),
    "llava-wild": Benchmark(judged.score_llava_wild, "run, question_id, category, scores"),
    "pope": Benchmark(pope.score, "id, answer, prediction, [split] (or split, TP, FP, TN, FN)"),
    "textvqa": Benchmark(textvqa.score, "id, question, answers, prediction"),
    "mathvista": Benchmark(
        mathvista.score, "pid, question_type, answer_type, choices, precision, answer, extraction (or response)"
    ),
    "blink": Benchmark(choice.score_blink, "task, idx, answer, prediction"),
    "mmstar": Benchmark(choice.score_mmstar, "index, question, answer, category, prediction"),
    "scienceqa": Benchmark(choice.score_scienceqa, "index, options, answer, prediction, [hit]"),
    "realworldqa": Benchmark(choice.score_realworldqa, "index, options, answer, prediction"),
    **dict.fromkeys(
        ("q-bench", "muirbench", "mmt-bench"),
        Benchmark(choice.score_plain, "index, options, answer, prediction, [category, l2-category, task]"),
    ),
    "seed": Benchmark(choice.score_seed, "question_id, choice_a ... choice_d, answer, prediction, [question_type_id]"),
    "ai2d": Benchmark(choice.score_ai2d, "index, options, answer, prediction"),
    "mmbench": Benchmark(circular.score, "index, A ... D, answer, prediction, [category, l2-category, split]"),
    "mmbench-cn": Benchmark(circular.score, "index, A ... D, answer, prediction, [category, l2-category, split]"),
    "ccbench": Benchmark(circular.score, "index, A ... D, answer, prediction, [category]"),
    "ocr-text": Benchmark(ocr.score_text, "dataset, image, answer, prediction"),
    "ocrbench": Benchmark(ocr.score_ocrbench, "id, type, answers, prediction"),
    "docvqa": Benchmark(document.score_docvqa, "id, answers, prediction"),
    "infovqa": Benchmark(document.score_docvqa, "id, answers, prediction, [answer_type, evidence, operation]"),
    "chartqa": Benchmark(document.score_chartqa, "id, answer, prediction, [split]"),
    "hallusionbench": Benchmark(
        hallusionbench.score, "category, subcategory, set_id, figure_id, question_id, gt_answer, prediction"
    ),
    "refcoco": Benchmark(refcoco.score, "image, sent, bbox, height, width, prediction, [split]"),
    "video-mme": Benchmark(
        video_mme.score, "question_id, duration, domain, sub_category, task_type, answer, response", result_rows
    ),
    "video-mme-v2": Benchmark(v2.score, "video_id, question_id, group_type, group_structure, answer, response"),
    "open-images": Benchmark(open_scoring.score, "id, kind, category, options, answer, prediction"),
    "open-videos": Benchmark(
        video_mme.score, "question_id, duration, domain, sub_category, task_type, answer, response", result_rows
    ),
    "rm-bench": Benchmark(reward.score_rm_bench, "score_chosen, score_rejected"),
    "vl-rewardbench": Benchmark(reward.score_vl_rewardbench, "group, correct"),
    "visualprocessbench": Benchmark(reward.score_visual_process, "id, labels, scores (or prediction), [source]"),
}


def benchmark(name: str) -> Benchmark:
    """Return the benchmark of a name.

    Raises:
        ConfigError: for an unknown name, with the nearest one.
    """
    if name not in BENCHMARKS:
        raise ConfigError(
            f"unknown benchmark '{name}'{nearest(name, BENCHMARKS)} (benchmarks: {', '.join(BENCHMARKS)})"
        )
    return BENCHMARKS[name]


def score_rows(name: str, rows: Sequence[Row]) -> Scores:
    """Score rows; repeated questions are left out and counted.

    Raises:
        ConfigError: for an unknown benchmark.
        RecordError: for a row that does not fit, with its line.
    """
    scorer = benchmark(name)
    kept, repeats = without_repeats(rows)
    try:
        scores = scorer.score(kept)
    except RecordError as error:
        raise RecordError(f"{error} (rows of {name}: {scorer.fields})") from None
    empty = sum(_is_empty(row) for row in kept)
    counts = {"rows": len(rows), "repeated_rows_left_out": repeats, "empty_predictions": empty, **scores.counts}
    if kept_back := sum(row.data.get("answer") == "" for row in kept):
        counts["rows_without_a_right_answer"] = kept_back
    return replace(scores, counts=counts)


def _is_empty(row: Row) -> bool:
    """Whether the model's answer is there and holds nothing."""
    names = [name for name in ("prediction", "response") if name in row.data]
    return bool(names) and not any(row.has(name) and str(row.data[name]).strip() for name in names)


def score_file(name: str, path: Path) -> Scores:
    """Score a result file. Errors as `score_rows` and `vedere.evals.records.read_rows`."""
    benchmark(name)  # a wrong name is said before a large file is read
    rows = BENCHMARKS[name].read(path)
    try:
        return score_rows(name, rows)
    except RecordError as error:
        raise RecordError(f"{path.name} {error}") from None
