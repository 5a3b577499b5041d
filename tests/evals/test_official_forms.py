"""Official releases as they are laid out: several files, folders, pictures under the names that each release gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import small_benchmarks
from scripted import run, start
from small_benchmarks import lines, picture
from vedere.errors import ConfigError, RecordError
from vedere.evals.items import Picture, Settings
from vedere.evals.suites import suite


def save(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number))


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def parquet(path: Path, rows: list[dict]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def items(name: str, data: Path, **settings):
    found = suite(name).load(data, Settings(**settings))
    for item in found:
        for medium in item.media:
            assert isinstance(medium, Picture)
            assert medium.images()[0].size == (48, 48)
    return found


def test_pope_is_three_files_and_its_figure_the_mean_of_three(tmp_path):
    save(tmp_path / "data" / "val2014" / "a.jpg")
    labels = {"random": ("yes", "no"), "popular": ("yes", "no"), "adversarial": ("yes", "yes")}
    for name, two in labels.items():
        rows = [
            {"question_id": n, "image": "a.jpg", "text": f"Is there a thing {n}?", "label": one}
            for n, one in enumerate(two)
        ]
        lines(tmp_path / "data" / f"coco_pope_{name}.json", rows)
    assert len(items("pope", tmp_path / "data")) == 6
    start({"model": lambda text, messages: "Yes"})
    figures = run("pope", tmp_path / "data", tmp_path / "out")["figures"]
    assert [figures[name]["f1"] for name in labels] == pytest.approx([2 / 3, 2 / 3, 1])
    assert figures["mean_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert len(items("pope", tmp_path / "data", split="popular")) == 2
    with pytest.raises(ConfigError, match=r"--md5 is of one file, and .* holds 3; give the file"):
        suite("pope").load(tmp_path / "data", Settings(md5="0" * 32))


def test_chartqa_is_two_files_and_its_figure_their_mean(tmp_path):
    save(tmp_path / "png" / "c.png")
    for name, count in (("human", 1), ("augmented", 3)):
        rows = [{"imgname": "c.png", "query": f"{name} {n}?", "label": "7"} for n in range(count)]
        write_json(tmp_path / f"test_{name}.json", rows)
    start({"model": lambda text, messages: "7" if "human" in text else "9"})
    figures = run("chartqa", tmp_path, tmp_path / "out")["figures"]
    assert (figures["acc"], figures["per_split"], figures["mean_of_splits"]) == (
        0.25,
        {"augmented": 0.0, "human": 1.0},
        0.5,
    )


def test_refcoco_has_a_file_for_each_split(tmp_path):
    save(tmp_path / "0.png")
    row = {"image": "0.png", "sent": "disc", "bbox": [4, 4, 20, 20], "height": 48, "width": 48}
    names = ("refcoco_val", "refcoco_testA", "refcoco+_val", "refcocog_test")
    for name in names:
        lines(tmp_path / f"{name}.jsonl", [row])
    start({"model": lambda text, messages: "[[83, 83, 417, 417]]"})
    figures = run("refcoco", tmp_path, tmp_path / "out")["figures"]
    assert figures["per_split"] == dict.fromkeys(sorted(names), 1.0)


def test_mmmu_and_blink_have_a_folder_for_each_subject_and_task(tmp_path):
    image = {"bytes": picture(1), "path": "1.png"}
    for subject in ("Art", "Math"):
        for split in ("dev", "validation"):
            row = {"id": f"{split}_{subject}_1", "question": "<image 1>?", "options": "['a', 'b']", "answer": "A"}
            parquet(
                tmp_path / "mmmu" / subject / f"{split}-00000-of-00001.parquet",
                [{**row, "question_type": "multiple-choice", "image_1": image, "image_2": None}],
            )
    assert [one.id for one in items("mmmu", tmp_path / "mmmu")] == ["validation_Art_1", "validation_Math_1"]
    assert [one.id for one in items("mmmu", tmp_path / "mmmu", split="dev")] == ["dev_Art_1", "dev_Math_1"]
    for task in ("Jigsaw", "Art_Style"):
        row = {
            "idx": f"val_{task}_1",
            "question": "Which?",
            "choices": ["a", "b"],
            "answer": "(B)",
            "prompt": "Which? (A) a",
        }
        for split in ("val", "test"):
            parquet(tmp_path / "blink" / task / f"{split}-00000-of-00001.parquet", [{**row, "image_1": image}])
    assert [one.record["task"] for one in items("blink", tmp_path / "blink")] == ["Art_Style", "Jigsaw"]


def test_mmmu_pro_is_the_mean_of_its_settings(tmp_path):
    image, ten = {"bytes": picture(1), "path": "1.png"}, [f"colour {n}" for n in range(10)]
    row = {"id": "test_Art_1", "options": str(ten), "answer": "J"}
    asked = {**row, "question": "Which, <image 1>?", "image_1": image}
    for piece in (0, 1):
        parquet(
            tmp_path / "standard (10 options)" / f"test-0000{piece}-of-00002.parquet",
            [{**asked, "id": f"test_Art_{piece}"}],
        )
    parquet(tmp_path / "vision" / "test-00000-of-00001.parquet", [{**row, "image": image}])
    found = items("mmmu-pro", tmp_path)
    assert [one.id for one in found] == ["standard-10/test_Art_0", "standard-10/test_Art_1", "vision/test_Art_1"]
    start({"model": lambda text, messages: "J" if "Which" in text else "A"})
    figures = run("mmmu-pro", tmp_path, tmp_path / "out")["figures"]
    assert figures["per_setting"] == {"standard-10": 1.0, "vision": 0.0}
    assert (figures["mean_of_settings"], figures["per_subject"]) == (0.5, {"Art": [2, 3]})


def test_llava_bench_is_three_files(tmp_path):
    save(tmp_path / "images" / "001.jpg")
    lines(tmp_path / "questions.jsonl", [{"question_id": 0, "image": "001.jpg", "text": "What?", "category": "conv"}])
    lines(tmp_path / "answers_gpt4.jsonl", [{"question_id": 0, "text": "A disc.", "answer_id": "x"}])
    lines(tmp_path / "context.jsonl", [{"id": "001", "image": "001.jpg", "caption": "One disc."}])
    (one,) = items("llava-wild", tmp_path)
    assert (one.question, one.record["reference"], one.record["caption"]) == ("What?", "A disc.", "One disc.")
    lines(tmp_path / "context.jsonl", [{"id": "002", "image": "002.jpg", "caption": "Another."}])
    with pytest.raises(RecordError, match=r"line 1: answers_gpt4.jsonl or context.jsonl has nothing for question 0"):
        items("llava-wild", tmp_path)


def test_textvqa_docvqa_and_infovqa_name_their_pictures_each_in_its_way(tmp_path):
    save(tmp_path / "text" / "train_images" / "00ff.jpg")
    asked = {"question": "What brand?", "image_id": "00ff", "question_id": 34602, "answers": ["dakota"] * 10}
    write_json(tmp_path / "text" / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [asked]})
    (one,) = items("textvqa", tmp_path / "text")
    assert (one.id, one.group, len(one.media)) == ("34602", "00ff", 1)
    save(tmp_path / "doc" / "documents" / "x_1.png")
    page = {"questionId": 1, "question": "Total?", "image": "documents/x_1.png", "answers": ["7"]}
    write_json(tmp_path / "doc" / "val_v1.0.json", {"data": [page]})
    assert len(items("docvqa", tmp_path / "doc")[0].media) == 1
    save(tmp_path / "info" / "infographicsvqa_images" / "9.jpeg")
    chart = {"questionId": 2, "question": "Share?", "image_local_name": "9.jpeg", "answers": ["7 %"]}
    write_json(tmp_path / "info" / "infographicsVQA_val_v1.0.json", {"data": [chart]})
    assert len(items("infovqa", tmp_path / "info")[0].media) == 1


def test_scienceqa_counts_answers_from_0_and_keeps_questions_with_a_picture(tmp_path):
    save(tmp_path / "images" / "test" / "7" / "image.png")
    row = {"question": "Which?", "choices": ["cat", "dog", "cow"], "answer": 1, "hint": "Look.", "split": "test"}
    problems = {
        "7": {**row, "image": "image.png"},
        "8": {**row, "image": None},
        "9": {**row, "image": "image.png", "split": "train"},
    }
    write_json(tmp_path / "problems.json", problems)
    (one,) = items("scienceqa", tmp_path)
    assert (one.id, one.target, dict(one.options)) == ("7", "B", {"A": "cat", "B": "dog", "C": "cow"})
    write_json(tmp_path / "problems.json", {"7": {**row, "answer": 3, "image": "image.png"}})
    with pytest.raises(RecordError, match=r"problems.json: line 1: 'answer' is 3; expected a number below 3"):
        items("scienceqa", tmp_path)


def test_options_inside_the_question_are_asked_as_they_stand(tmp_path):
    """InternVL's file of AI2D, and RealWorldQA's official one, whose other questions want a word."""
    save(tmp_path / "0.png")
    inside = "Which part?\nA. leaf\nB. root\nC. stem\nD. bud"
    lines(tmp_path / "ai2d.jsonl", [{"image": "0.png", "question": inside, "question_id": 5, "answer": "B"}])
    start({"model": lambda text, messages: "B"})
    result = run("ai2d", tmp_path / "ai2d.jsonl", tmp_path / "out", settings=Settings(prompts="internvl"))
    assert (result["figures"]["acc"], result["figures"]["acc_exact"]) == (1.0, 1.0)
    image = {"bytes": picture(1), "path": "1.png"}
    rows = [
        {"question": f"{inside}\nPlease answer directly with only the letter of the correct option.", "answer": "B"},
        {"question": "How many dogs? Please answer directly with a single word or number.", "answer": "Two"},
    ]
    parquet(tmp_path / "realworldqa.parquet", [{**row, "image": image} for row in rows])
    choice, word = items("realworldqa", tmp_path / "realworldqa.parquet")
    assert (choice.kind, word.kind) == ("choice", "short")
    start({"model": lambda text, messages: "B" if "part" in text else "2."})
    assert run("realworldqa", tmp_path / "realworldqa.parquet", tmp_path / "real")["figures"]["acc"] == 1.0


def test_the_abilities_that_mis_reads_beside_safety(tmp_path):
    """Q-Bench gives the right text, MuirBench marks the places of its pictures without numbers."""
    for name in ("quality", "several"):
        (tmp_path / name).mkdir()
    one, two = items("q-bench", small_benchmarks.q_bench(tmp_path / "quality"))
    assert (one.target, two.target, dict(two.options)) == ("A", "B", {"A": "blurred", "B": "sharp"})
    data = small_benchmarks.muirbench(tmp_path / "several")
    pair, _ = items("muirbench", data)
    start({"model": lambda text, messages: "B"})
    figures = run("muirbench", data, tmp_path / "out")["figures"]
    assert (figures["acc"], figures["per_task"]) == (1.0, {"Counting": 1.0})
    parts = suite("muirbench").prompt(pair, Settings()).parts
    assert [part if isinstance(part, str) else part.name for part in parts] == [
        "Question: How many discs are in ",
        "0.png",
        " and ",
        "1.png",
        ", pair 0?\nOptions:\nA. one\nB. two\nC. ",
        "2.png",
        "\nPlease select the correct answer from the options above. \n",
    ]
    write_json(
        tmp_path / "quality" / "llvisionqa_dev.json",
        [{"img_path": "0.png", "question": "q", "candidates": ["a", "b"], "correct_ans": "c"}],
    )
    with pytest.raises(RecordError, match=r"'correct_ans' is 'c'; expected one of the texts in 'candidates'"):
        items("q-bench", tmp_path / "quality")


def test_pieces_of_one_parquet_file_are_one(tmp_path):
    image = {"bytes": picture(1), "path": "1.png"}
    for piece in (0, 1):
        row = {"question_id": piece, "question": "Text?", "answers": ["a"] * 10, "image": image}
        parquet(tmp_path / f"validation-0000{piece}-of-00002.parquet", [row])
    assert [one.id for one in items("textvqa", tmp_path)] == ["0", "1"]
    parquet(tmp_path / "train-00000-of-00001.parquet", [row])
    with pytest.raises(RecordError, match="expected a file whose name begins with textvqa"):
        items("textvqa", tmp_path)
