"""A picture of what vedere-mini answers about held-out pictures, hits and misses as they come.

    python benchmarks/mini_answers.py --data data/mini --out docs/models/mini-answers.png [--model mini] [--each 4]

The first held-out records of each kind, not a choice of good ones.
"""

from __future__ import annotations

import argparse
import textwrap
from itertools import groupby
from pathlib import Path

from mini_skills import answers
from PIL import Image, ImageDraw, ImageFont

import vedere
from vedere.answers import exact_match
from vedere.data.build.blind import read_records, turns
from vedere.data.build.record import SIDE
from vedere.data.build.sheet import media, view

WIDTH, LINE, LETTERS = SIDE + 40, 15, 30
RIGHT, WRONG = (0, 110, 40), (180, 20, 20)


def main() -> None:
    """Answers and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--each", type=int, default=4, help="pictures of a kind")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these")
    options = parser.parse_args()
    session = vedere.load(options.model)
    rows = []
    for kind, group in groupby(read_records(options.data / "heldout"), key=lambda record: str(record["kind"])):
        if options.kinds and kind not in options.kinds:
            continue
        records = list(group)[: options.each]
        shown = [[options.data / name for name in media(record)] for record in records]
        rows.append((kind, records, answers(session, records, shown)))
    height = SIDE + 7 * LINE
    page = Image.new("RGB", (options.each * WIDTH, len(rows) * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for row, (_, records, given) in enumerate(rows):
        for column, record in enumerate(records):
            x, y = column * WIDTH + 10, row * height + 6
            page.paste(view(options.data, record), (x, y))
            question, expected, _ = turns(record)[0]
            answer = given[str(record["id"])]
            right = exact_match(answer, expected)
            lines = textwrap.wrap(question, LETTERS)[:3]
            lines += textwrap.wrap(f"> {answer}" + ("" if right else f"   ({expected})"), LETTERS)[:3]
            for number, line in enumerate(lines):
                colour = "black" if number < len(textwrap.wrap(question, LETTERS)[:3]) else RIGHT if right else WRONG
                pen.text((x, y + SIDE + 4 + LINE * number), line, fill=colour, font=font)
    page.quantize(128).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
