"""Scoring recorded answers: 2,700 of Video-MME and 5,000 of TextVQA, by vedere and by lmms-eval in one run.

lmms-eval's own functions run in a Python of their own (``--peer PYTHON --package FOLDER``, its wheel unpacked): what
it does with each document, then its aggregation. Before a time counts, every row is compared: rows on which the rules
agree must have the same credit, and each row on which they do not is put under a reason. Both sides start from rows
in memory and end with their figures; rounds alternate. vedere computes more in that time: both extractions, both
denominators and every cell with its standard error for Video-MME, two normal forms for TextVQA.

    python benchmarks/scoring_speed.py --peer PYTHON --package FOLDER --textvqa answers.jsonl

The answers to Video-MME are drawn here in the forms that models use, 2,700 over 900 videos. ``--textvqa`` takes rows
``id, question, answers, prediction``; without it 5,000 are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from vedere.answers import video_mme_corrected, video_mme_letter
from vedere.evals.records import Row, read_rows
from vedere.evals.textvqa import m4c_form, soft_score
from vedere.evals.textvqa import score as score_textvqa
from vedere.evals.video_mme import score as score_video_mme
from vedere.evals.video_mme import taxonomy

RESULTS = Path(__file__).parent / "results"

PEER = r"""
import importlib, json, logging, sys, time, types
root, path = sys.argv[1], sys.argv[2]
for name in ("", ".tasks", ".tasks._task_utils", ".tasks.videomme", ".tasks.textvqa"):  # without its package's own imports
    module = types.ModuleType("lmms_eval" + name)
    module.__path__ = [root + "/lmms_eval" + name.replace(".", "/")]
    sys.modules["lmms_eval" + name] = module
videomme = importlib.import_module("lmms_eval.tasks.videomme.utils")
textvqa = importlib.import_module("lmms_eval.tasks.textvqa.utils")
videomme.eval_logger.remove()
data = json.load(open(path))
copy = json.dumps(data["textvqa"])
print("ready", flush=True)
for line in sys.stdin:
    answers = json.loads(copy)  # its scorer changes them
    start = time.perf_counter()
    found = [videomme.videomme_process_results(row, [row["response"]]) for row in data["video_mme"]]
    found = [one["videomme_perception_score"] for one in found]
    whole = videomme.videomme_aggregate_results(found)
    middle = time.perf_counter()
    credits = [textvqa.textvqa_process_results(row, [row["prediction"]])["exact_match"] for row in answers]
    mean = sum(credits) / len(credits)
    end = time.perf_counter()
    out = {"video_mme": middle - start, "textvqa": end - middle}
    if line.strip() == "rows":
        out |= {"letters": [one["pred_answer"] for one in found], "credits": credits, "figures": [whole, 100 * mean]}
    print(json.dumps(out), flush=True)
"""

_FORMS = (
    ("{letter}", 30),
    ("{letter}.", 14),
    ("{letter}. {text}", 20),
    ("({letter})", 6),
    ("The best answer is: {letter}", 5),
    ("The best answer is {letter}. {text}", 4),
    ("Answer: {letter}", 5),
    ("Best option: {letter}", 2),
    ("The correct option is ({letter}).", 2),
    ("**{letter}**", 2),
    ("Based on the video, the answer is {letter}.", 3),
    ("A man is seen at the table, so the answer must be {letter}", 2),
    ("({lower})", 1),
    ("{text}", 2),
    ("I cannot tell from the frames.", 1),
    ("Both A and {letter} are possible, but {letter} fits better.", 1),
    ("", 1),
)
_THINGS = ("three of them", "because it rains", "a red car", "they cook dinner", "on the left side", "after the game")


def video_mme_rows(seed: int = 0) -> list[dict[str, Any]]:
    """Rows with the shape of the data set: 900 videos, 3 questions each, all sub-categories and task types."""
    rng, made = random.Random(seed), []
    forms, weights = zip(*_FORMS, strict=True)
    tasks = {
        duration: [name for name, counts in taxonomy.TASK_COUNTS.items() for _ in range(counts[place])]
        for place, duration in enumerate(taxonomy.DURATIONS)
    }
    for names in tasks.values():
        rng.shuffle(names)
    for video in range(taxonomy.VIDEOS):
        duration, sub = taxonomy.DURATIONS[video // 300], taxonomy.SUB_CATEGORIES[video % 30]
        domain = next(name for name, subs in taxonomy.DOMAINS.items() if sub in subs)
        for number in (1, 2, 3):
            answer = rng.choice("ABCD")
            letter = answer if rng.random() < 0.65 else rng.choice("ABCD")
            form = rng.choices(forms, weights)[0]
            made.append(
                {
                    "question_id": f"{video + 1:03}-{number}",
                    "video_id": f"{video + 1:03}",
                    "videoID": f"video-{video + 1}",
                    "duration": duration,
                    "domain": domain,
                    "sub_category": sub,
                    "task_type": tasks[duration].pop(),
                    "answer": answer,
                    "response": form.format(letter=letter, lower=letter.lower(), text=rng.choice(_THINGS)),
                }
            )
    return made


def drawn_textvqa(seed: int = 0, count: int = 5000) -> list[dict[str, Any]]:
    """Rows like TextVQA's: ten answers a question, most of them alike."""
    rng = random.Random(seed)
    words = (
        "stop",
        "the Dakota",
        "15:30",
        "don't walk",
        "no. 7",
        "Coca-Cola",
        "$3.50",
        "two",
        "it's here",
        "A&W",
        "dont know",
    )
    made = []
    for number in range(count):
        usual = rng.choice(words)
        answers = [usual if rng.random() < 0.7 else rng.choice(words) for _ in range(10)]
        given = usual if rng.random() < 0.6 else rng.choice(words)
        made.append(
            {
                "id": str(number),
                "question": f"What is written on sign {number}?",
                "answers": answers,
                "prediction": given,
            }
        )
    return made


def reason(row: dict[str, Any], theirs: str) -> str:
    """Why the official script and lmms-eval read different letters."""
    ours, clear = video_mme_letter(row["response"]), video_mme_corrected(row["response"])
    if not theirs:
        return "official reads a letter, lmms-eval none"
    if not ours:
        return "official reads none, lmms-eval a letter" + (" (the one that is meant)" if theirs == clear else "")
    if theirs == clear:
        return "official reads a capital inside an earlier word, lmms-eval the letter that is meant"
    return "both read capitals of words or of other options"


def main() -> None:
    """Compares row by row, then times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python with numpy, loguru, pyyaml, datasets and opencv")
    parser.add_argument("--package", required=True, type=Path, help="folder with lmms_eval, unpacked")
    parser.add_argument("--textvqa", type=Path, help="JSONL of answers to TextVQA")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    video = video_mme_rows()
    given = [dict(row.data) for row in read_rows(options.textvqa)] if options.textvqa else drawn_textvqa()
    words = [{**row, "question_id": row.get("question_id", row["id"])} for row in given]
    data = options.package / "answers.json"
    data.write_text(json.dumps({"video_mme": video, "textvqa": words}), encoding="utf-8")
    peer = subprocess.Popen(
        [options.peer, "-c", PEER, str(options.package), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    assert peer.stdout.readline().strip() == "ready"

    def ask(what: str) -> dict[str, Any]:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdin.write(what + "\n")
        peer.stdin.flush()
        answer: dict[str, Any] = json.loads(peer.stdout.readline())
        return answer

    rows = [Row(line, row) for line, row in enumerate(video, 1)]
    lines = [Row(line, row) for line, row in enumerate(words, 1)]

    def own() -> dict[str, float]:
        video_mme_letter.cache_clear()
        video_mme_corrected.cache_clear()
        start = time.perf_counter()
        score_video_mme(rows)
        middle = time.perf_counter()
        score_textvqa(lines)
        return {"video_mme": middle - start, "textvqa": time.perf_counter() - middle}

    theirs = ask("rows")
    result: dict[str, Any] = {"video_mme": compare_letters(video, theirs), "textvqa": compare_credits(words, theirs)}
    ours_s, theirs_s = [], []
    for _ in range(options.rounds):
        ours_s.append(own())
        theirs_s.append(ask("time"))
    peer.stdin.close()
    peer.wait()
    data.unlink()
    for name in ("video_mme", "textvqa"):
        result[name] |= {
            "vedere_ms": 1000 * statistics.median(one[name] for one in ours_s),
            "lmms_eval_ms": 1000 * statistics.median(one[name] for one in theirs_s),
            "ratio": statistics.median(b[name] / a[name] for a, b in zip(ours_s, theirs_s, strict=True)),
        }
    result |= {
        "rounds": options.rounds,
        "textvqa_rows_from": "recorded answers" if options.textvqa else "drawn",
        "versions": {"python": sys.version.split()[0], "lmms_eval": "0.7.3", "cores": os.cpu_count()},
    }
    RESULTS.joinpath("scoring_speed.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, RESULTS / "scoring_speed.png")
    print(json.dumps(result, indent=1))


def compare_letters(video: list[dict[str, Any]], theirs: dict[str, Any]) -> dict[str, Any]:
    """Video-MME: figures of both sides, and a reason for every row that they read differently."""
    ours = [video_mme_letter(row["response"]) for row in video]
    apart = [k for k, letter in enumerate(theirs["letters"]) if letter != ours[k]]
    same = [k for k in range(len(video)) if theirs["letters"][k] == ours[k]]
    right = sum(ours[k] == video[k]["answer"] for k in same)
    assert right == sum(theirs["letters"][k] == video[k]["answer"] for k in same)
    figures = score_video_mme([Row(line, row) for line, row in enumerate(video, 1)]).figures
    counted = sum(letter == row["answer"] for letter, row in zip(theirs["letters"], video, strict=True))
    assert abs(100 * counted / len(video) - theirs["figures"][0]) < 1e-9
    reasons = Counter(reason(video[k], theirs["letters"][k]) for k in apart)
    examples: dict[str, list[str]] = {}
    for k in apart:
        said = f"'{video[k]['response']}': official {ours[k] or 'none'}, lmms-eval {theirs['letters'][k] or 'none'}"
        listed = examples.setdefault(reason(video[k], theirs["letters"][k]), [])
        if len(listed) < 3 and said not in listed:
            listed.append(said)
    return {
        "rows": len(video),
        "rows_read_alike": len(same),
        "accuracy_on_rows_read_alike": 100 * right / len(same),
        "official": figures["overall"]["acc"],
        "official_all_rows": figures["all_rows"]["overall"]["acc"],
        "corrected_all_rows": figures["corrected_all_rows"]["overall"]["acc"],
        "lmms_eval": theirs["figures"][0],
        "differences": dict(reasons),
        "examples": examples,
    }


def compare_credits(words: list[dict[str, Any]], theirs: dict[str, Any]) -> dict[str, Any]:
    """TextVQA: M4C's form is lmms-eval's; every row that differs is listed with what its normal forms are."""
    ours = [soft_score(row["prediction"], [str(one) for one in row["answers"]], m4c_form) for row in words]
    apart = [k for k, credit in enumerate(theirs["credits"]) if abs(credit - ours[k]) > 1e-9]
    figures = score_textvqa([Row(line, row) for line, row in enumerate(words, 1)]).figures
    return {
        "rows": len(words),
        "rows_with_equal_credit": len(words) - len(apart),
        "m4c_form": figures["acc_m4c_norm"],
        "lmms_eval": theirs["figures"][1],
        "vlmevalkit_form": figures["acc_vlmevalkit_norm"],
        "differences": [
            {"prediction": words[k]["prediction"], "vedere": ours[k], "lmms_eval": theirs["credits"][k]}
            for k in apart[:50]
        ],
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars of milliseconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 2.8))
    names = {"video_mme": "Video-MME, 2,700 answers", "textvqa": f"TextVQA, {result['textvqa']['rows']:,} answers"}
    for k, name in enumerate(names):
        for shift, side, colour in ((-0.2, "vedere", "#0072B2"), (0.2, "lmms_eval", "#E69F00")):
            value = result[name][f"{side}_ms"]
            axes.bar(k + shift, value, 0.38, color=colour, label=side.replace("_", "-") if not k else None)
            axes.text(k + shift, value, f"{value:.0f} ms", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set_ylabel("milliseconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
