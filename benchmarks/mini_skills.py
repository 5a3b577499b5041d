"""What vedere-mini can do: greedy answers on held-out pictures against guessing without looking.

    vedere data build mini --out data/mini [--sources FOLDER]
    python benchmarks/mini_skills.py --data data/mini [--model mini] [--samples 200] [--kinds words charts]
    python benchmarks/mini_skills.py --data data/mini --reading-scales 1 --name mini_skills_one_reading

Scored by normalised exact match. *Blind* is the better of two guessers that never see the picture (most frequent training
answer to the same question, or to the same type of question); *wrong picture* is the model itself shown another picture of
the same kind, which tells how much of its score comes from looking. Intervals are 95 % (Wilson).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import store

import vedere
from vedere.data.build.blind import blind_accuracy, read_records, score_answers, turns
from vedere.data.build.sheet import media
from vedere.infer.prompts import Question


def interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.96, right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return centre - half, centre + half


def answers(session: vedere.Session, records: list[dict[str, Any]], shown: list[list[Path]]) -> dict[str, str]:
    """Greedy answers by record id; what is shown is a picture, two pictures, or a clip."""
    questions = [
        Question(
            text=turns(record)[0][0],
            images=() if "video" in record else files,
            videos=files if "video" in record else (),
            max_new_tokens=32,
        )
        for record, files in zip(records, shown, strict=True)
    ]
    return {str(record["id"]): reply.text for record, reply in zip(records, session.chat_many(questions), strict=True)}


def read_at(session: vedere.Session, scales: list[float]) -> None:
    """Lets the model's reader read at other sizes than its config says."""
    vision = replace(session.model.config.vision, reading_scales=tuple(scales))
    session.model.config = replace(session.model.config, vision=vision)


def main() -> None:
    """Answers, scores, prints, stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--samples", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", nargs="*", default=[], help="of the held-out records; none: all")
    parser.add_argument(
        "--reading-scales", nargs="+", type=float, help="in place of the model's own (vedere.models.readings)"
    )
    parser.add_argument("--name", default="mini_skills", help="name of the stored result")
    options = parser.parse_args()
    session = vedere.load(options.model)
    if options.reading_scales:
        read_at(session, options.reading_scales)
    everything = [r for r in read_records(options.data / "heldout") if not options.kinds or r["kind"] in options.kinds]
    training = list(read_records(options.data / "instruction"))
    results: dict[str, Any] = {}
    print(f"{'kind':12} {'exact':>7} {'95 %':>13} {'blind':>7} {'wrong picture':>14} {'questions':>10}")
    for kind, group in groupby(everything, key=lambda record: str(record["kind"])):
        records = list(group)[: options.samples]
        blind = blind_accuracy(training, records)  # on the same questions as the model
        shown = [[options.data / name for name in media(record)] for record in records]
        seen = score_answers(records, answers(session, records, shown))
        shifted = shown[len(shown) // 2 :] + shown[: len(shown) // 2]
        unseen = score_answers(records, answers(session, records, shifted))
        low, high = interval(seen[kind].correct, seen[kind].total)
        results[kind] = {
            "exact": seen[kind].accuracy,
            "interval": [low, high],
            "blind": blind[kind],
            "wrong_picture": unseen[kind].accuracy,
            "questions": seen[kind].total,
            "types": {
                name.split("/")[1]: {"exact": score.accuracy, "questions": score.total}
                for name, score in seen.items()
                if "/" in name
            },
        }
        print(
            f"{kind:12} {seen[kind].accuracy:7.1%} {low:6.1%}-{high:6.1%} {blind[kind]:7.1%} "
            f"{unseen[kind].accuracy:14.1%} {seen[kind].total:10}",
            flush=True,
        )
    scales = list(session.model.config.vision.reading_scales)
    store(
        options.name,
        {"model": options.model, "rule": "normalised exact match, greedy", "reading_scales": scales, "kinds": results},
    )


if __name__ == "__main__":
    main()
