"""Every scorer on small tables whose figures follow by hand, and what it says to rows that do not fit."""

from __future__ import annotations

import json

import pytest

from vedere.cli.score import main
from vedere.errors import RecordError
from vedere.evals.benchmarks import score_file, score_rows
from vedere.evals.choice import bracketed_letter, inner_options
from vedere.evals.mmmu import DOMAINS
from vedere.evals.records import Row


def score(name, *rows):
    return score_rows(name, [Row(number, row) for number, row in enumerate(rows, 1)])


def mme(prediction, answer="Yes", image="1.jpg", category="count"):
    question = f"Is it {answer}? Please answer yes or no."
    return {"category": category, "image": image, "question": question, "answer": answer, "prediction": prediction}


def test_mme_adds_accuracy_and_pairs():
    rows = [mme("yes"), mme("no", "No"), mme("yes", image="2.jpg"), mme("yes", "No", image="2.jpg")]
    figures = score("mme", *rows).figures
    assert figures.pop("other_rules").keys() == {"internvl", "vlmevalkit"}
    assert figures == {"perception": 75 + 50, "cognition": 0, "categories": {"count": 125}}


def test_mme_other_readings_stand_beside():
    rows = [
        mme("是的。"),
        mme("不是", "No"),
        mme("The answer is: true", image="2.jpg"),
        mme("No, not yes", "No", image="2.jpg"),
    ]
    figures = score("mme", *rows).figures
    assert figures["categories"] == {"count": 25}
    # InternVL writes "yes", "no" and "the answer is: yes", which the four characters still miss
    assert figures["other_rules"]["internvl"] == {"perception": 125, "cognition": 0, "categories": {"count": 125}}
    assert figures["other_rules"]["vlmevalkit"]["categories"] == {"count": 0}
    assert (
        score("mme", mme("The answer is yes"), mme("No", "No")).figures["other_rules"]["vlmevalkit"]["perception"]
        == 200
    )


def test_mme_rows_must_pair():
    with pytest.raises(
        RecordError, match=r"line 2: its image '2.jpg' is not that of line 1, '1.jpg'; expected two consec"
    ):
        score("mme", mme("yes"), mme("no", "No", image="2.jpg"))
    with pytest.raises(RecordError, match=r"line 1: the row has no partner"):
        score("mme", mme("yes"))
    with pytest.raises(RecordError, match=r"line 1: 'category' is 'counting'; expected one of existence, count"):
        score("mme", mme("yes", category="counting"))
    with pytest.raises(RecordError, match=r"line 1: 'answer' is 'maybe'; expected Yes or No"):
        score("mme", mme("yes", "maybe"))


def test_mmmu_raw_counts_the_fallback_and_never_draws():
    options = {"A": "cat", "B": "dog"}
    rows = [
        {
            "id": "validation_Art_1",
            "question_type": "multiple-choice",
            "answer": "A",
            "index2ans": options,
            "response": "A",
        },
        {
            "id": "validation_Art_2",
            "question_type": "multiple-choice",
            "answer": "A",
            "index2ans": options,
            "response": "?",
        },
        {
            "id": "validation_Art_Theory_1",
            "question_type": "short-answer",
            "answer": ["7", "seven"],
            "response": "so 7.00",
        },
    ]
    figures = score("mmmu", *rows).figures
    assert figures["correct_without_fallback"] == 2
    assert figures["random_fallback_items"] == 1
    assert figures["acc_bounds"] == [2 / 3, 1]
    assert figures["per_subject"] == {"Art": [1, 2], "Art_Theory": [1, 1]}
    assert figures["per_domain"] == {"Art and Design": [2, 3]}
    assert sum(map(len, DOMAINS.values())) == 30


def test_mmmu_pro():
    row = {"id": "test_Art_1", "options": ["cat", "dog"], "answer": "B", "response": "Answer: B"}
    assert score("mmmu-pro", row, row | {"id": "2", "response": ""}).figures["acc_bounds"] == [0.5, 1]
    assert score("mmmu-pro", row | {"id": "test_Math_12"}).figures["per_domain"] == {"Science": [1, 1]}


def test_mmvet_means_runs_and_capabilities():
    rows = [
        {"id": "a", "scores": [1.0, 0.5], "capability": ["ocr", "rec"]},
        {"id": "b", "scores": [0, 0], "capability": ["rec"]},
    ]
    figures = score("mmvet", *rows).figures
    assert figures["total_per_run"] == [50, 25]
    assert figures["capability"] == {"ocr": 100, "rec": 50}
    assert figures["capability_combination"] == {"ocr_rec": 100, "rec": 0}
    with pytest.raises(RecordError, match=r"line 2: 'scores' is \[1\]; expected a list of 2 numbers"):
        score("mmvet", rows[0], {"id": "b", "scores": [1]})
    with pytest.raises(RecordError, match="expected grades from 0 to 1"):
        score("mmvet", {"id": "b", "scores": [7]})


def test_llava_wild_reads_the_judges_first_line_where_there_are_no_scores():
    rows = [{"question_id": 0, "category": "conv", "judge_first_line": "8 4"}]
    assert score("llava-wild", *rows).figures == {"run1": {"conv": [50, 80, 40], "all": [50, 80, 40]}}
    with pytest.raises(RecordError, match="'judge_first_line' is 'I refuse'; expected two grades"):
        score("llava-wild", {"question_id": 0, "category": "conv", "judge_first_line": "I refuse"})


def test_pope_rows_and_tables():
    rows = [
        {"id": 1, "answer": "yes", "prediction": "Yes, a dog. No cat."},
        {"id": 2, "answer": "no", "prediction": "There is not"},
        {"id": 3, "answer": "no", "prediction": ""},
    ]
    figures = score("pope", *rows).figures
    assert [figures[name] for name in ("TP", "FP", "TN", "FN")] == [1, 1, 1, 0]
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["other_rules"]["xcomposer"]["TN"] == 0
    # a verdict that is not found counts as no, but not as a right one
    assert figures["other_rules"]["vlmevalkit"]["TN"] == 2
    assert figures["other_rules"]["vlmevalkit"]["acc"] == 0
    asked = {"text": "Is there no dog?", "label": "yes"}  # the benchmark's own field names
    assert score("pope", {**asked, "prediction": None}).figures["TP"] == 1
    assert score("pope", {"text": "No", "label": "yes"}).figures["FN"] == 1
    split = score("pope", *({**row, "split": name} for name in ("random", "popular") for row in rows)).figures
    assert split["random"] == {key: figures[key] for key in split["random"]}
    assert split["mean_f1"] == pytest.approx(figures["f1"])
    tables = score(
        "pope", {"split": "a", "TP": 1, "FP": 0, "TN": 0, "FN": 0}, {"split": "b", "TP": 0, "FP": 1, "TN": 1, "FN": 1}
    )
    assert tables.figures["mean_f1"] == 0.5
    assert tables.figures["pooled"]["f1"] == 0.5
    with pytest.raises(RecordError, match="'FP' is -1; expected a whole number"):
        score("pope", {"TP": 1, "FP": -1, "TN": 0, "FN": 0})


def test_a_row_of_pope_counts_in_every_sampling_that_it_names():
    """VLMEvalKit's table has a question once that is in several samplings."""
    rows = [
        {"index": 1, "category": "adversarial,popular,random", "answer": "yes", "prediction": "Yes"},
        {"index": 2, "category": "popular", "answer": "no", "prediction": "Yes"},
    ]
    figures = score("pope", *rows).figures
    one_by_one = [{**row, "category": name} for row in rows for name in row["category"].split(",")]
    assert score("pope", *one_by_one).figures == figures
    assert [figures[name]["TP"] for name in ("adversarial", "popular", "random")] == [1, 1, 1]
    assert (figures["pooled"]["TP"], figures["pooled"]["FP"], figures["popular"]["acc"]) == (3, 1, 0.5)
    assert figures["other_rules"]["vlmevalkit"]["acc"] == 0.75


def test_mathvista_lists_and_nested_fields():
    row = {"pid": 1, "question_type": "free_form", "answer_type": "list", "metadata": {"task": "t", "language": "zh"}}
    rows = [
        row | {"answer": "[0, 2]", "extraction": [0, 2]},
        row | {"pid": 2, "answer": "[0, 2]", "extraction": "[0, 2]"},
        row | {"pid": 3, "answer": "2", "answer_type": "float", "extraction": 1.6},  # no precision: a whole number
        row | {"pid": 4, "answer": "1.55", "answer_type": "float", "extraction": 1.554, "precision": "2"},
    ]
    scores = score("mathvista", *rows)
    assert [verdict.credit for verdict in scores.verdicts] == [1, 1, 1, 1]
    assert scores.figures["task"]["t"]["total"] == scores.figures["language"]["zh"]["total"] == 4
    with pytest.raises(RecordError, match="'precision' is \"two\"; expected a whole number"):
        score("mathvista", rows[0] | {"precision": "two"})


def test_mathvista_normal_forms():
    free = {"question_type": "free_form", "answer_type": "integer", "answer": "3"}
    choice = {"question_type": "multi_choice", "answer_type": "text", "choices": ["cat", "dog"], "answer": "dog"}
    rows = [
        {"pid": "1", **free, "extraction": "3.0"},
        {"pid": "2", **free, "extraction": "three"},
        {"pid": "3", **choice, "extraction": "(b)"},
        {"pid": "4", **choice, "extraction": "B"},
        {"pid": "5", **choice, "extraction": "dogs"},
        {"pid": "6", **free | {"answer_type": "float", "answer": "1.5"}, "precision": 1, "extraction": "1.46"},
        {"pid": "7", **free, "response": 'The answer is "3".'},
        {"pid": "8", **free, "response": "who knows"},
        {"pid": "9", **free, "extraction": "inf"},
    ]
    scores = score("mathvista", *rows)
    assert [verdict.credit for verdict in scores.verdicts] == [1, 0, 1, 1, 1, 1, 1, 0, 0]
    assert scores.counts["unresolved"] == 1
    assert scores.figures["question_type"]["multi_choice"] == {"accuracy": 100, "correct": 3, "total": 3}


def test_blink_is_the_mean_of_tasks():
    rows = [{"task": "a", "idx": str(n), "answer": "(A)", "prediction": "(A)" if n else "(B)"} for n in range(4)]
    figures = score("blink", *rows, {"task": "b", "idx": "x", "answer": "(A)", "prediction": "A cat"}).figures
    assert figures["per_task"] == {"a": 75, "b": 0}
    assert (figures["macro"], figures["micro"]) == (37.5, 60)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A)", "A"),
        ("A", "A"),
        ("B", "B"),
        (" (B) the second image", "B"),
        ("The answer is (B)\n", "B"),
        ("(A) or (B)", None),
        ("A cat", None),
        ("(Z)", "Z"),
        ("", None),
    ],
)
def test_letters_of_blink(text, letter):
    assert bracketed_letter(text) == letter
    row = {"task": "x", "idx": "val_x_1", "answer": "(B)"}
    assert score("blink", {**row, "full_prediction": text}).figures["macro"] == (100 if letter == "B" else 0)
    strict = score("blink", {**row, "prediction": text, "full_prediction": None}).figures["macro"]
    assert strict == (100 if text.strip() in ("(B)", "B") else 0)


def test_scienceqa_takes_the_recorded_judge_where_rules_leave_a_row_open():
    row = {"options": {"A": "cat", "B": "dog"}, "answer": "A"}
    rows = [
        {"index": 1, **row, "prediction": "A"},
        {"index": 2, **row, "prediction": "feline", "hit": 1},
        {"index": 3, **row, "prediction": "feline"},
        {"index": 4, **row, "prediction": "B", "truncated": True, "rule_extracted": "A"},
    ]
    figures = score("scienceqa", *rows).figures
    expected = {"n": 4, "acc": 0.75, "rule_unresolved": 2, "acc_rules_only": 0.5, "acc_newer_rules_only": 0.25}
    assert figures == expected
    said = {
        "index": 5,
        **row,
        "prediction": "The correct answer is **A** because it has long whiskers and it is a feline",
    }
    assert score("scienceqa", said).figures["acc_newer_rules_only"] == 1
    assert score("scienceqa", said).figures["rule_unresolved"] == 1


def test_seed_leaves_videos_out():
    row = {"choice_a": "cat", "choice_b": "dog", "answer": "B", "question_type_id": 5}
    rows = [
        {"question_id": "1", **row, "prediction": "B. dog"},
        {"question_id": "2", **row, "prediction": "It is a dog"},
        {"question_id": "v3", **row, "data_type": "video", "prediction": "B"},
    ]
    scores = score("seed", *rows)
    assert scores.figures["acc"] == 1
    assert scores.figures["acc_first_letter"] == 0.5
    assert scores.figures["per_type"] == {"Instance Counting": 1}
    assert scores.counts["video_rows_left_out"] == 1
    unmarked = [
        {**row, "question_id": "4", "question_type_id": "10", "prediction": "B"},
        {"question_id": "v5", "choice_a": "cat", "choice_b": "dog", "answer": "A", "prediction": "B"},
        {**row, "question_id": "6", "question_type_id": "1", "prediction": "B"},
    ]
    assert score("seed", *unmarked).counts["video_rows_left_out"] == 2
    assert score("seed", *unmarked).figures["per_type"] == {"Scene Understanding": 1}


def test_ai2d_and_realworldqa_and_mmstar():
    row = {"options": ["cat", "dog"], "answer": "B", "category": "math"}
    rows = [{"index": n, **row, "prediction": text} for n, text in enumerate(("B", "B.", "b", "Big dog"))]
    assert score("ai2d", *rows).figures == {"n": 4, "acc": 0.75, "acc_exact": 0.5, "acc_first_letter": 0.75}
    assert score("realworldqa", *rows).figures["acc"] == 0.75
    assert score("mmstar", *rows).figures["acc"] == 1
    small = {"index": 9, "answer": "b", "category": "math", "prediction": "The answer is\nB"}
    assert score("mmstar", small).figures["acc"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Which?\nOptions: A: red, B: light, blue, C: white",
        "A: red, B: light, blue, C: white",
        "Which?\nA. red\nB. light, blue\nC. white",
        "Which?\n(A) red\n(B) light, blue\n(C) white",
    ],
)
def test_options_inside_a_text(text):
    assert inner_options(text) == {"A": "red", "B": "light, blue", "C": "white"}
    assert inner_options("Which is it, A: red?") == {}


def test_without_options_only_letters_are_read():
    row = {"question": "Which?", "answer": "B", "category": "math"}
    given = [{"index": n, **row, "prediction": text} for n, text in enumerate(("B", "it is (b)", "(B)"))]
    assert score("mmstar", *given).figures["acc_vlmevalkit"] == pytest.approx(2 / 3)


def test_circular_needs_every_pass():
    base = {"A": "cat", "B": "dog", "category": "kinds", "l2-category": "CP", "split": "dev"}
    rotated = base | {"A": "dog", "B": "cat"}
    rows = [
        {"index": 7, **base, "answer": "A", "prediction": "A"},
        {"index": 1_000_007, **rotated, "answer": "B", "prediction": "B"},
        {"index": 8, **base, "answer": "A", "prediction": "A"},
        {"index": 1_000_008, **rotated, "answer": "B", "prediction": "A"},
        {"index": 9, **base, "answer": "A", "prediction": "A"},
        {"index": 1_000_009, **rotated, "answer": "B", "prediction": "who knows"},
    ]
    scores = score("mmbench", *rows)
    assert scores.figures["acc"] == pytest.approx(1 / 3)
    assert scores.figures["acc_upper_bound"] == pytest.approx(2 / 3)
    assert scores.figures["vanilla_acc"] == 1
    assert scores.figures["per_l2_category"] == {"CP": pytest.approx(1 / 3)}
    assert scores.counts["undecided_questions"] == 1
    assert score("ccbench", *rows[:2]).figures["acc"] == 1
    assert score("mmbench", rows[0]).counts["questions_with_fewer_passes_than_options"] == 1
    with pytest.raises(RecordError, match="line 1: its question has no pass 0"):
        score("mmbench", rows[1])
    as_texts = [{**row, "index": str(row["index"])} for row in rows]
    assert score("mmbench", *as_texts).figures == scores.figures
    with pytest.raises(RecordError, match="'index' is \"seven\"; expected a whole number"):
        score("mmbench", rows[0] | {"index": "seven"})


def test_right_answers_that_are_kept_back_are_counted(tmp_path, capsys):
    row = {"index": 7, "A": "cat", "B": "dog", "answer": "", "prediction": "A"}
    assert score("mmbench", row).counts["rows_without_a_right_answer"] == 1
    assert "rows_without_a_right_answer" not in score("mmbench", row | {"answer": "A"}).counts
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert main(["mmbench", str(path), "--json"]) == 0
    assert "1 rows have an empty 'answer' and count as wrong" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{"prediction": ""}, {"response": None}, {"response": " \n"}])
def test_empty_answers_are_counted(given):
    row = {"id": "validation_Art_1", "question_type": "multiple-choice", "answer": "A", "index2ans": {"A": "cat"}}
    assert score("mmmu", row | given).counts["empty_predictions"] == 1


def test_ocrbench_parts():
    rows = [
        {"id": 1, "type": "Regular Text Recognition", "answers": ["CENTRE", "x"], "prediction": "it says centre"},
        {"id": 2, "type": "Handwritten Mathematical Expression Recognition", "answers": "x ^ 2", "prediction": "X^2"},
    ]
    figures = score("ocrbench", *rows).figures
    assert (figures["score"], figures["final_score_norm"]) == (1, 0.1)
    assert figures["parts"]["Text Recognition"] == 1
    with pytest.raises(RecordError, match="'type' is 'poem'; expected one of Regular Text Recognition"):
        score("ocrbench", rows[0] | {"type": "poem"})


def test_docvqa_and_infovqa():
    rows = [{"id": 1, "answers": ["12 /10"], "prediction": "12/10", "answer_type": "span"}]
    assert score("docvqa", *rows).figures["anls_official"] == pytest.approx(5 / 6)
    assert score("infovqa", *rows).figures["anls_strip_punct"] == 1
    assert score("infovqa", *rows).figures["answer_type"] == {"span": pytest.approx(5 / 6)}


def test_chartqa_mean_of_splits():
    rows = [
        {"id": n, "label": "10", "prediction": p, "split": s}
        for n, (p, s) in enumerate([("10.4", "human"), ("11", "human"), ("10", "augmented")])
    ]
    figures = score("chartqa", *rows).figures
    assert figures["per_split"] == {"human": 0.5, "augmented": 1}
    assert figures["mean_of_splits"] == 0.75


def test_hallusionbench_three_accuracies():
    def row(figure, question, truth, prediction):
        place = {"category": "VD", "subcategory": "chart", "set_id": "0", "figure_id": figure, "question_id": question}
        return {**place, "gt_answer": truth, "prediction": prediction}

    rows = [
        row("0", "0", "1", "Yes."),
        row("0", "1", "0", "Yes."),
        row("1", "0", "1", "yes"),
        row("1", "1", "0", "perhaps"),
    ]
    scores = score("hallusionbench", *rows)
    shown = {"aAcc": 50, "fAcc": 0, "qAcc": 50, "mean": pytest.approx(100 / 3)}
    other = {"aAcc": 75, "fAcc": 50, "qAcc": 50, "mean": pytest.approx(175 / 3)}  # "perhaps" is no
    expected = {"n": 4, **shown, "per_category": {"VD": shown}, "other_rules": {"xcomposer": other}}
    assert scores.figures == expected
    assert scores.counts["unresolved"] == 1
    index = {"index": "x_VD_chart_0_0_0", "l2-category": "chart", "answer": "Yes", "prediction": "yes"}
    assert score("hallusionbench", index).figures["mean"] == 100


def test_refcoco_precision():
    row = {"bbox": [0, 0, 50, 100], "width": 100, "height": 100, "sent": "a"}
    rows = [
        {"image": "1", **row, "split": "val", "prediction": "<box>[[0, 0, 500, 1000]]</box>"},
        {"image": "2", **row, "split": "val", "prediction": "none"},
        {"image": "3", **row, "split": "testA", "prediction": "[0, 0, 0.25, 1.0]"},  # an overlap of exactly one half
    ]
    scores = score("refcoco", *rows)
    assert scores.figures["per_split"] == {"val": 0.5, "testA": 1}
    assert scores.counts["unresolved"] == 1
    with pytest.raises(RecordError, match=r"'bbox' is \[5, 0, 1, 1\] in 100 x 100"):
        score("refcoco", rows[0] | {"bbox": [5, 0, 1, 1]})


def test_video_mme_denominators():
    place = {
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Law",
        "task_type": "OCR Problems",
        "answer": "C",
    }
    rows = [{"question_id": str(n), **place, "response": text} for n, text in enumerate(("C", "Best option: C", "(c)"))]
    figures = score("video-mme", *rows).figures
    assert figures["overall"] == {"correct": 1, "answered": 2, "acc": 50}
    assert figures["all_rows"]["overall"]["total"] == 3
    assert figures["corrected"]["short/domain/Knowledge"]["correct"] == 3
    assert figures["short/task_type/OCR Problems"] == figures["overall"]


def test_video_mme_takes_the_official_file_too(tmp_path):
    place = {"duration": "short", "domain": "Knowledge", "sub_category": "Law"}
    asked = {"task_type": "OCR Problems", "answer": "C", "question": "q", "options": ["A. a", "B. b", "C. c", "D. d"]}
    questions = [asked | {"question_id": f"001-{n}", "response": text} for n, text in enumerate(("C. c", "", "A"), 1)]
    path = tmp_path / "official.json"
    text = json.dumps([{"video_id": "001", **place, "questions": questions}])
    path.write_text(text[:-1] + ",]")  # the published template has such commas
    assert score_file("video-mme", path).figures["overall"] == {"correct": 1, "answered": 2, "acc": 50}


def test_rewards():
    rm = {"i": 0, "score_chosen": [1, 2, 3], "score_rejected": [0, 2, 5]}
    figures = score("rm-bench", rm).figures
    assert figures == {"easy": 1, "normal": pytest.approx(1 / 3), "hard": 0, "overall": pytest.approx(4 / 9), "n": 1}
    vl = score(
        "vl-rewardbench",
        *({"group": g, "i": n, "correct": c} for n, (g, c) in enumerate([("a", 1), ("b", 1), ("b", 0)])),
    )
    assert vl.figures == {"overall": pytest.approx(2 / 3), "a": 1, "b": 0.5, "macro": 0.75}
    with pytest.raises(RecordError, match="'correct' is 2; expected 0 or 1"):
        score("vl-rewardbench", {"group": "a", "correct": 2})


def test_visual_process_macro_f1():
    rows = [
        {"id": 1, "source": "x", "labels": [1, -1, 0, 1], "scores": [0.9, 0.1, 0.9, 0.2]},
        {"id": 2, "source": "y", "labels": [1, -1], "prediction": [1, 1]},
    ]
    scores = score("visualprocessbench", *rows)
    # right steps: 2 hit, 1 false, 1 missed; wrong steps: 1 hit, 1 false, 1 missed
    assert scores.figures["macro_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert scores.figures["steps"] == 5
    assert scores.counts["neutral_steps"] == 1
