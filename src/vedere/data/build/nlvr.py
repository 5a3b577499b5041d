"""NLVR (Suhr et al. 2017): boxes of small coloured objects with human-written statements (CC-BY 4.0).

Two kinds come from it. `boxes` cuts the three boxes of a picture apart (100 px each, so that objects of 10 to 30 px stay
visible) and asks questions generated from the recorded structure. `nlvr` shows the whole picture of 400 x 100 px, which the
model squeezes to its tile, with its statement, and asks for counts in one of the boxes: hard at 25 visual tokens, and
said so.
The source's dev and hidden splits train, its test split is held out.

Cost: about 2 ms a picture.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from vedere.data.build.record import (
    CAPTION_PROMPTS,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    stream,
    weighted_order,
)

COLOURS = {"Black": "black", "Yellow": "yellow", "#0099ff": "blue"}
SHAPES = ("circle", "square", "triangle")
PLACES = ("left", "middle", "right")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
_ATTRIBUTION = "NLVR (Alane Suhr, Mike Lewis, James Yeh, Yoav Artzi), CC-BY 4.0; cut and resized"
_LEFT_EDGES = (0, 150, 300)
Box = list[dict[str, Any]]


def _rows(split: Split, seed: int, folder: Path, name: str) -> list[dict[str, Any]]:
    rows = []
    for part in ("dev", "hidden") if split == "train" else ("test",):
        lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        rows += [json.loads(line) for line in lines if line.strip()]
    stream(seed, name, split).shuffle(rows)
    return rows


def _look(thing: dict[str, Any]) -> tuple[str, str]:
    return COLOURS[thing["color"]], thing["type"]


def _several(count: int, noun: str) -> str:
    return f"{NUMBERS[count]} {noun}" if count == 1 else f"{NUMBERS[count]} {noun}s"


def summary(box: Box) -> str:
    """Return what a box holds, by look and in a fixed order: "two black squares and one blue circle"."""
    looks = [_look(thing) for thing in box]
    parts = [
        _several(looks.count((colour, shape)), f"{colour} {shape}")
        for colour in COLOURS.values()
        for shape in SHAPES
        if (colour, shape) in looks
    ]
    if not parts:
        return "an empty box"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def box_questions(box: Box, rng: random.Random) -> tuple[Ask, ...]:
    """Return questions about one box; yes/no is balanced as far as the box allows."""
    looks = [_look(thing) for thing in box]
    present = sorted(set(looks))
    absent = [(c, s) for c in COLOURS.values() for s in SHAPES if (c, s) not in looks]
    asked = rng.choice(present if rng.random() < 0.5 and present else absent or present)
    colour = rng.choice(sorted({c for c, _ in looks}) if rng.random() < 0.7 else list(COLOURS.values()))
    options = [
        (
            1.4,
            Ask(
                question=f"Is there {article(f'{asked[0]} {asked[1]}')}?",
                answer="yes" if asked in looks else "no",
                question_type="exists",
                facts=(f"exists:{asked}", *(("colour:0", "shape:0") if len(box) == 1 else ())),
            ),
        ),
        (
            1.2,
            Ask(question="How many objects are there?", answer=NUMBERS[len(box)], question_type="count", facts=("n",)),
        ),
        (
            1.2,
            Ask(
                question=f"How many {colour} objects are there?",
                answer=NUMBERS[sum(c == colour for c, _ in looks)],
                question_type="count_colour",
                facts=(f"count:{colour}", *(("colour:0",) if len(box) == 1 else ())),
            ),
        ),
        (
            0.4 if len(present) <= 2 else 0.0,
            Ask(question=rng.choice(CAPTION_PROMPTS), answer=summary(box), question_type="describe", facts=("all",)),
        ),
    ]
    if len(box) == 1:
        for question_type, answer in zip(("colour", "shape"), looks[0], strict=True):
            asks = f"What {'color' if question_type == 'colour' else 'shape'} is the object?"
            one = Ask(
                question=asks, answer=answer, question_type=question_type, facts=(f"{question_type}:0",), given=("n",)
            )
            options.append((1.0, one))
    return tuple(weighted_order(rng, options))


def make_boxes(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield up to `count` single boxes."""
    made, drawn = 0, set()
    places = [(row, place) for row in _rows(split, seed, folder, "boxes") for place in range(3)]
    stream(seed, "boxes", split, "order").shuffle(places)
    for row, place in places:
        if made == count:
            return
        box = row["structured_rep"][place]
        same = json.dumps(sorted(json.dumps(thing, sort_keys=True) for thing in box))
        if not box or len(box) >= len(NUMBERS) or same in drawn:  # many towers repeat
            continue
        drawn.add(same)
        rng = stream(seed, "boxes", split, made)
        left = _LEFT_EDGES[place]
        with Image.open(folder / row["file"]) as opened:
            image = opened.convert("RGB").crop((left, 0, left + 100, 100))
        text = summary(box)
        where = Ask(question="How many objects are there?", answer=NUMBERS[len(box)], question_type="count")
        yield Item(
            image=image,
            labels=(text,),
            captions=(f"a grey box with {text}",),
            alignment=(*captions_as_asks((text,), rng), where),
            asks=box_questions(box, rng),
            key=f"{row['file']}:{place}",
            licence="CC-BY-4.0",
            attribution=_ATTRIBUTION,
        )
        made += 1


def make_nlvr(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield up to `count` whole pictures."""
    for index, row in enumerate(_rows(split, seed, folder, "nlvr")[:count]):
        rng = stream(seed, "nlvr", split, index)
        boxes: list[Box] = row["structured_rep"]
        with Image.open(folder / row["file"]) as opened:
            image = opened.convert("RGB")
        place = rng.randrange(3)
        statement = Ask(
            question=f"True or false: {row['sentence'].strip()}", answer=row["label"], question_type="statement"
        )
        inside = Ask(
            question=f"How many objects are in the {PLACES[place]} box?",
            answer=NUMBERS[len(boxes[place])] if len(boxes[place]) < len(NUMBERS) else "many",
            question_type="count_in_box",
        )
        text = "three grey boxes with coloured objects"
        yield Item(
            image=image,
            labels=("three boxes", "boxes with objects"),
            captions=(text,),
            alignment=(*captions_as_asks((text,), rng), inside),
            asks=tuple(weighted_order(rng, [(1.5, statement), (1.0, inside)])),
            key=row["file"],
            licence="CC-BY-4.0",
            attribution=_ATTRIBUTION,
        )


_LOOKS_FOR = ("dev.jsonl", "hidden.jsonl", "test.jsonl", "images")
BOXES = Kind(name="boxes", share=0.05, make=make_boxes, folder="nlvr", looks_for=_LOOKS_FOR, ledger=("nlvr",))
NLVR = Kind(name="nlvr", share=0.02, make=make_nlvr, folder="nlvr", looks_for=_LOOKS_FOR, ledger=("nlvr",))
