"""Small benchmarks of our own: a few simple drawings in the published forms, with the answers that a perfect model gives."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "white")


def picture(number: int, side: int = 48) -> bytes:
    """A PNG with a disc; another one for each number."""
    image = Image.new("RGB", (side, side), (250, 250, 250))
    colour = COLOURS[number % 3]
    ImageDraw.Draw(image).ellipse((4, 4, 20 + 3 * number, 20 + 3 * number), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encoded(number: int) -> str:
    return base64.b64encode(picture(number)).decode()


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A table as VLMEvalKit writes it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(names)
        writer.writerows([row.get(name, "") for name in names] for row in rows)
    return path


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(number: int, question: str, answer: object, **fields: Any) -> dict[str, Any]:
    """A row of VLMEvalKit's tables, with its own picture."""
    return {"index": number, "image": encoded(number), "question": question, "answer": answer, **fields}


def _choices(number: int, question: str = "Which colour is disc", **fields: Any) -> dict[str, Any]:
    options = dict(zip("ABCD", COLOURS, strict=True))
    return asked(number, f"{question} {number}?", "ABC"[number % 3], **options, **fields)


def mme(folder: Path) -> Path:
    rows = [
        asked(number, f"Is disc {number} {colour}? Please answer yes or no.", answer)
        | {"index": 2 * number + half, "category": "color" if number % 2 else "code_reasoning"}
        for number in range(4)
        for half, (colour, answer) in enumerate([(COLOURS[number % 3], "Yes"), ("grey", "No")])
    ]
    return table(folder / "MME_small.tsv", rows)


def mmbench(folder: Path) -> Path:
    place = {"category": "colour", "l2-category": "fine", "split": "dev"}
    rows = [_choices(n, hint="", **place) for n in range(3)]
    rows.append({**rows[0], "index": 7, "question": "Which colour is the first disc?", "image": "0", "hint": "A disc."})
    rows[1] |= {"B": "", "D": "", "answer": "A", "A": "green", "C": "blue"}  # gaps
    return table(folder / "MMBench_DEV_EN_small.tsv", rows)


def mmbench_cn(folder: Path) -> Path:
    rows = [_choices(n, "圆是什么颜色") | dict(zip("ABCD", "红绿蓝白", strict=True)) for n in range(2)]
    return table(folder / "MMBench_DEV_CN_small.tsv", rows)


def ccbench(folder: Path) -> Path:
    return table(folder / "CCBench_small.tsv", [_choices(n, "哪种颜色", category="food") for n in range(2)])


def seed(folder: Path) -> Path:
    (folder / "images").mkdir()
    rows = []
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(picture(number))
        choices = {f"choice_{letter}": colour for letter, colour in zip("abcd", COLOURS, strict=True)}
        rows.append(
            {
                "question_id": str(number),
                "question": f"Which colour is disc {number}?",
                **choices,
                "answer": "ABC"[number],
                "data_type": "image",
                "data_id": f"{number}.png",
                "question_type_id": number + 1,
            }
        )
    rows.append({**rows[0], "question_id": "v1", "data_type": "video", "data_id": "0.mp4"})
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": rows}))
    return folder


def ocrbench(folder: Path) -> Path:
    kinds = (
        "Regular Text Recognition",
        "Key Information Extraction",
        "Handwritten Mathematical Expression Recognition",
    )
    rows = [
        asked(n, f"What is written on disc {n}?", f"['Word{n}', 'word {n}']", category=kind)
        for n, kind in enumerate(kinds)
    ]
    return table(folder / "OCRBench_small.tsv", rows)


def mmmu(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "id": "validation_Art_1",
            "question": "What does <image 1> show?",
            "options": "['a disc', 'a square <image 2>']",
            "answer": "A",
            "question_type": "multiple-choice",
            "image_1": "1.png",
            "image_2": "2.png",
        },
        {
            "id": "validation_Math_2",
            "question": "How many discs does <image 1> show?",
            "options": "[]",
            "answer": "1",
            "question_type": "short-answer",
            "image_1": "1.png",
        },
    ]
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(picture(number))
    return lines(folder / "mmmu_small.jsonl", rows)


def mmmu_pro(folder: Path) -> Path:
    (folder / "1.png").write_bytes(picture(1))
    ten = [f"colour {n}" for n in range(10)]
    first = {"id": "test_Art_1", "question": "Which?", "options": str(ten), "answer": "J", "image_1": "1.png"}
    second = {"id": "test_Art_2", "options": str(ten[:4]), "answer": "B", "image": "1.png"}
    return lines(folder / "mmmu_pro_small.jsonl", [first, second])


def mathvista(folder: Path) -> Path:
    rows = [
        asked(1, "Hint: integer.\nHow many discs?", "1", pid=1, question_type="free_form", answer_type="integer"),
        asked(2, "Hint: choose.\nWhich colour?", "blue", pid=2, question_type="multi_choice", answer_type="text")
        | {"choices": "['red', 'blue']"},
    ]
    return table(folder / "MathVista_small.tsv", rows)


def textvqa(folder: Path) -> Path:
    answers = str(["word"] * 7 + ["other"] * 3)
    rows = [asked(n, f"Text on {n}?", answers) for n in range(2)]
    return table(folder / "TextVQA_small.tsv", rows)


def docvqa(folder: Path) -> Path:
    (folder / "documents").mkdir()
    (folder / "documents" / "a.png").write_bytes(picture(1))
    rows = [
        {"questionId": n, "question": f"Total {n}?", "answers": [f"{n}.00"], "image": "documents/a.png"} for n in (1, 2)
    ]
    (folder / "docvqa_val.json").write_text(json.dumps({"dataset_name": "docvqa", "data": rows}))
    return folder


def infovqa(folder: Path) -> Path:
    rows = [asked(n, f"Share {n}?", f"['{n}%']") for n in range(2)]
    return table(folder / "InfoVQA_small.tsv", rows)


def chartqa(folder: Path) -> Path:
    rows = [asked(n, f"Bar {n}?", f"{n}.5", split=split) for n, split in enumerate(("test_human", "test_augmented"))]
    return table(folder / "ChartQA_small.tsv", rows)


def ai2d(folder: Path) -> Path:
    return table(folder / "AI2D_small.tsv", [_choices(n, "Which label is") for n in range(2)])


def scienceqa(folder: Path) -> Path:
    return table(folder / "ScienceQA_small.tsv", [_choices(n, hint="Look.") for n in range(2)])


def realworldqa(folder: Path) -> Path:
    return table(folder / "RealWorldQA_small.tsv", [_choices(n) for n in range(2)])


def hallusionbench(folder: Path) -> Path:
    (folder / "hallusion").mkdir()
    (folder / "hallusion" / "0.png").write_bytes(picture(0))
    rows = [
        {
            "category": "VS",
            "subcategory": "chart",
            "visual_input": str(int(n > 0)),
            "set_id": "0",
            "figure_id": str(int(n > 0)),
            "question_id": str(n),
            "question": f"Is it so, {n}?",
            "gt_answer": str(n % 2),
            "filename": "hallusion/0.png" if n else None,
        }
        for n in range(3)
    ]
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    return folder


def mmvet(folder: Path) -> Path:
    (folder / "0.png").write_bytes(picture(0))
    rows = {
        f"v1_{n}": {
            "imagename": "0.png",
            "question": f"What, {n}?",
            "answer": "disc",
            "capability": ["rec", "ocr"][: n + 1],
        }
        for n in range(2)
    }
    (folder / "mm-vet.json").write_text(json.dumps(rows))
    return folder


def llava_wild(folder: Path) -> Path:
    rows = [
        asked(n, f"Describe {n}.", "", gpt_answer="A disc.", category="conv", caption="One disc.") for n in range(2)
    ]
    return table(folder / "LLaVABench_small.tsv", rows)


def pope(folder: Path) -> Path:
    (folder / "a.jpg").write_bytes(picture(0))
    rows = [
        {
            "question_id": n,
            "image": "a.jpg",
            "text": f"Is there a thing {n} in the image?",
            "label": ("yes", "no")[n % 2],
        }
        for n in range(4)
    ]
    return lines(folder / "coco_pope_random.json", rows)


def mmstar(folder: Path) -> Path:
    rows = [
        asked(n, f"Which colour is disc {n}?\nOptions: A: red, B: green, C: blue, D: white", "ABC"[n])
        | {"category": "math", "l2_category": "geometry"}
        for n in range(3)
    ]
    return table(folder / "MMStar_small.tsv", rows)


def blink(folder: Path) -> Path:
    rows = [
        asked(n, f"Which disc is larger, pair {n}?", "B", A="the first", B="the second", category="Counting")
        | {"image": str([encoded(n), encoded(n + 1)])}
        for n in range(2)
    ]
    return table(folder / "BLINK_small.tsv", rows)


def q_bench(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(picture(0))
    rows = [
        {"img_path": "0.png", "question": f"How sharp is disc {n}?", "candidates": ["sharp", "blurred"][:: 1 - 2 * n]}
        | {"correct_ans": "sharp", "type": n, "concern": 1, "id": n}
        for n in range(2)
    ]
    (folder / "llvisionqa_dev.json").write_text(json.dumps(rows))
    return folder


def muirbench(folder: Path) -> Path:
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(n))
    rows = [
        {
            "idx": str(n),
            "task": "Counting",
            "question": f"How many discs are in <image> and <image>, pair {n}?",
            "options": ["one", "two", "<image>"],
            "answer": "B",
            "image_list": ["0.png", "1.png", "2.png"],
        }
        for n in range(2)
    ]
    return lines(folder / "muirbench_small.jsonl", rows)


def mmt_bench(folder: Path) -> Path:
    return table(
        folder / "MMT-Bench_VAL_small.tsv",
        [_choices(n, category="colour", **{"l2-category": "look"}) for n in range(2)],
    )


def refcoco(folder: Path) -> Path:
    (folder / "0.png").write_bytes(picture(0))
    rows = [
        {"image": "0.png", "sent": f"disc {n}", "bbox": [4, 4, 20, 20], "height": 48, "width": 48, "split": "val"}
        for n in range(2)
    ]
    return lines(folder / "refcoco_val.jsonl", rows)


def visualprocessbench(folder: Path) -> Path:
    (folder / "0.png").write_bytes(picture(0))
    rows = [
        {
            "id": str(n),
            "image": ["0.png"],
            "question": f"How many, {n}?",
            "response": {"steps": ["One disc.", "So 2."], "process_correctness": [1, -1]},
            "data_source": "MathVision",
        }
        for n in range(2)
    ]
    return lines(folder / "visualprocessbench_small.jsonl", rows)


def rm_bench(folder: Path) -> Path:
    rows = [
        {
            "id": n,
            "prompt": f"Say {n}.",
            "chosen": [f"{n} good {style}" for style in range(3)],
            "rejected": [f"{n} bad {style}" for style in range(3)],
        }
        for n in range(2)
    ]
    (folder / "rm-bench_small.json").write_text(json.dumps(rows))
    return folder


def vl_rewardbench(folder: Path) -> Path:
    (folder / "0.png").write_bytes(picture(0))
    rows = [
        {
            "id": f"r{n}",
            "query": f"What is it, {n}?",
            "response": ["a disc", "a cat"] if n % 2 else ["a cat", "a disc"],
            "human_ranking": [0, 1] if n % 2 else [1, 0],
            "group": "general" if n < 2 else "reasoning",
            "image": "0.png",
        }
        for n in range(4)
    ]
    return lines(folder / "vl-rewardbench_small.jsonl", rows)


def perfect(name: str, target: str, text: str) -> str:
    """What a perfect model answers to a prompt of a benchmark."""
    if name == "rm-bench":
        return "Grade: 90" if " good " in text else "10"
    if name == "refcoco":
        return "<box>[[83, 83, 417, 417]]</box>"
    if name == "textvqa":
        return "word"
    return target


_ALL: dict[str, tuple[Callable[[Path], Path], str, float]] = {
    "mme": (mme, "perception", 200.0),
    "mmbench": (mmbench, "acc", 1.0),
    "mmbench-cn": (mmbench_cn, "acc", 1.0),
    "ccbench": (ccbench, "acc", 1.0),
    "seed": (seed, "acc", 1.0),
    "ocrbench": (ocrbench, "score", 3),
    "mmmu": (mmmu, "correct_without_fallback", 2),
    "mmmu-pro": (mmmu_pro, "acc", 1.0),
    "mathvista": (mathvista, "average/accuracy", 100.0),
    "textvqa": (textvqa, "acc_m4c_norm", 100.0),
    "docvqa": (docvqa, "anls_official", 1.0),
    "infovqa": (infovqa, "anls_official", 1.0),
    "chartqa": (chartqa, "mean_of_splits", 1.0),
    "ai2d": (ai2d, "acc", 1.0),
    "scienceqa": (scienceqa, "acc", 1.0),
    "hallusionbench": (hallusionbench, "mean", 100.0),
    "mmvet": (mmvet, "mean", 100.0),
    "llava-wild": (llava_wild, "run1/all/0", 100.0),
    "pope": (pope, "f1", 1.0),
    "realworldqa": (realworldqa, "acc", 1.0),
    "mmstar": (mmstar, "acc", 1.0),
    "blink": (blink, "macro", 100.0),
    "q-bench": (q_bench, "acc", 1.0),
    "muirbench": (muirbench, "acc", 1.0),
    "mmt-bench": (mmt_bench, "acc", 1.0),
    "refcoco": (refcoco, "precision_at_1", 1.0),
    "visualprocessbench": (visualprocessbench, "macro_f1", 100.0),
    "rm-bench": (rm_bench, "overall", 1.0),
    "vl-rewardbench": (vl_rewardbench, "macro", 1.0),
}
MAKERS = {name: make for name, (make, _, _) in _ALL.items()}
"""Benchmark -> what writes its small data."""
BEST = {name: (figure, value) for name, (_, figure, value) in _ALL.items()}
"""Benchmark -> name of its figure (parts joined by a slash) and its largest value."""
