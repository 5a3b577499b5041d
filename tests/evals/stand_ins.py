"""A safety set of harmless stand-ins in the published layout: "[stand-in question 3]", coloured squares as pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from PIL import Image

CATEGORIES = ("Illegal Activity", "Violent", "Hate", "Self-Harm", "Privacy", "Erotic")


def square(path: Path, number: int) -> None:
    """A picture of 30 x 20 pixels in a colour of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), (number * 37 % 256, number * 71 % 256, 90)).save(path)


def mis(root: Path, count: int = 6, split: str = "hard", mark: str = "") -> Path:
    """``mis_SPLIT.json`` with pictures; ``mark`` stands in every question."""
    rows = []
    for number in range(1, count + 1):
        names = [f"{split}_image/{number}/object{place}.png" for place in (1, 2)]
        for place, name in enumerate(names):
            square(root / name, 2 * number + place)
        rows.append(
            {
                "id": number,
                "question": f"[stand-in question {number}{mark}]",
                "category": CATEGORIES[(number - 1) % len(CATEGORIES)],
                "sub_category": ("Cybercrimes", "Human Trafficking")[number % 2],
                "image_path1": names[0],
                "image_path2": names[1],
            }
        )
    (root / f"mis_{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def _csv(path: Path, rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def figstep(root: Path) -> int:
    (root / "carrier.txt").write_text("[stand-in carrier]")
    _csv(root / "safebench.csv", [{"category_id": 1, "task_id": n, "category_name": "Topic"} for n in (1, 2, 3)])
    for number in (1, 2, 3):
        square(root / f"images/SafeBench/query_ForbidQI_1_{number}_6.png", number)
    return 3


def mm_safetybench(root: Path) -> int:
    folder = root / "processed_questions"
    folder.mkdir(parents=True)
    fields = ("Rephrased Question", "Rephrased Question(SD)")
    rows = {str(n): dict.fromkeys(fields, f"[stand-in question {n}]") for n in range(2)}
    (folder / "01-Scenario.json").write_text(json.dumps(rows))
    for kind in ("SD", "SD_TYPO", "TYPO"):
        for number in range(2):
            square(root / f"imgs/01-Scenario/{kind}/{number}.jpg", number)
    return 6


def jailbreakv(root: Path) -> int:
    rows = [
        {
            "id": n,
            "jailbreak_query": f"[stand-in question {n}]",
            "policy": "Topic",
            "format": "plain",
            "image_path": "a.png",
        }
        for n in range(3)
    ]
    _csv(root / "mini_JailBreakV_28K.csv", rows)
    square(root / "a.png", 1)
    return 3


def siuo(root: Path) -> int:
    rows = [
        {"question_id": n, "image": f"{n}.png", "question": f"[stand-in {n}]", "category": "Topic"} for n in range(2)
    ]
    (root / "siuo_gen.json").write_text(json.dumps(rows))
    for number in range(2):
        square(root / f"images/{number}.png", number)
    return 2


def siuo_choice(root: Path, mark: str = "") -> int:
    rows = [
        {
            "question_id": n,
            "image": f"{n}.png",
            "question": f"[stand-in {n}{mark}]",
            "category": "Topic",
            "options": {letter: f"[stand-in option {letter}{mark}]" for letter in "ABCD"},
            "correct_option": "ABCD"[n % 4],
        }
        for n in range(6)
    ]
    (root / "siuo_mcqa.json").write_text(json.dumps(rows))
    for number in range(6):
        square(root / f"images/{number}.png", number)
    return 6


def mssbench(root: Path) -> int:
    rows = [
        {
            "intent": "[stand-in]",
            "Type": "Topic",
            "safe_image_path": f"s{n}.png",
            "unsafe_image_path": f"u{n}.png",
            "queries": [f"[stand-in question {n} {place}]" for place in range(2)],
        }
        for n in range(2)
    ]
    (root / "combined.json").write_text(json.dumps({"chat": rows, "embodied": []}))
    for number in range(2):
        square(root / f"chat/s{number}.png", number)
        square(root / f"chat/u{number}.png", number + 9)
    return 8


def mssbench_embodied(root: Path, mark: str = "") -> int:
    """Two scenes with two tasks each, worded by situation; the robot's text beside them."""
    rows = [
        {
            "task": "[stand-in]",
            "category": "Topic",
            "safe": f"s{n}.png",
            "unsafe": f"u{n}.png",
            "safe_instructions": [f"[stand-in safe task {n} {place}{mark}]" for place in range(2)],
            "unsafe_instructions": [f"[stand-in unsafe task {n} {place}{mark}]" for place in range(2)],
        }
        for n in range(2)
    ]
    (root / "combined.json").write_text(json.dumps({"chat": [], "embodied": rows}))
    (root / "embodied_prompt.txt").write_text("[stand-in robot]\n")
    for number in range(2):
        square(root / f"embodied/s{number}.png", number)
        square(root / f"embodied/u{number}.png", number + 9)
    return 8


def vlsbench(root: Path) -> int:
    rows = [
        {
            "instruction_id": n,
            "instruction": f"[stand-in {n}]",
            "image_path": f"imgs/{n}.png",
            "category": "T",
            "sub_category": "S",
        }
        for n in range(2)
    ]
    (root / "data.json").write_text(json.dumps(rows))
    for number in range(2):
        square(root / f"imgs/{number}.png", number)
    return 2


def vlguard(root: Path) -> int:
    pair = [
        {"safe_instruction": "[stand-in a]", "response": "-"},
        {"unsafe_instruction": "[stand-in b]", "response": "-"},
    ]
    rows = [
        {"id": "1", "image": "1.png", "safe": True, "instr-resp": pair},
        {
            "id": "2",
            "image": "2.png",
            "safe": False,
            "harmful_category": "Topic",
            "instr-resp": [{"instruction": "[stand-in c]", "response": "-"}],
        },
    ]
    (root / "test.json").write_text(json.dumps(rows))
    for number in (1, 2):
        square(root / f"test/{number}.png", number)
    return 3


NEIGHBOURS = {
    "figstep": figstep,
    "mm-safetybench": mm_safetybench,
    "jailbreakv": jailbreakv,
    "siuo": siuo,
    "siuo-choice": siuo_choice,
    "mssbench": mssbench,
    "mssbench-embodied": mssbench_embodied,
    "vlsbench": vlsbench,
    "vlguard": vlguard,
}
