"""Contact sheets: look at what the model will see, with questions and answers below each picture.

Cost: one decoded file a picture.
"""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vedere.data.build.blind import turns
from vedere.data.build.record import SIDE, Split

CELL, LINES = SIDE + 20, 5
_LETTERS = 30  # that fit under a picture


def media(record: dict[str, Any]) -> list[str]:
    """Return the files of a record, relative to the corpus' folder."""
    files = record["video"] if "video" in record else record["image"]
    return list(files) if isinstance(files, list) else [files]


def view(out: Path, record: dict[str, Any]) -> Image.Image:
    """Return what a record shows in a square: its picture, its two pictures, or four frames of its film."""
    if "video" in record:
        from vedere.vision.video import read_frames

        pictures = read_frames(str(out / record["video"]), 4).frames
    else:
        pictures = [Image.open(out / name).convert("RGB") for name in media(record)]
    square = Image.new("RGB", (SIDE, SIDE), "white")
    side = SIDE if len(pictures) == 1 else SIDE // 2
    for index, picture in enumerate(pictures):
        picture.thumbnail((side - 1, side - 1)) if len(pictures) > 1 else picture.thumbnail((side, side))
        square.paste(picture, (index % 2 * side, index // 2 * side))
    return square


def sheet(
    out: Path, kind: str, *, split: Split = "heldout", columns: int = 8, rows: int = 5, seed: int = 0
) -> Image.Image:
    """Return a contact sheet of one kind with the questions and answers below each picture, as far as there is room."""
    path = out / ("heldout" if split == "heldout" else "instruction") / f"{kind}.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(records)
    page_image = Image.new("RGB", (columns * CELL, rows * (CELL + 12 * LINES)), "white")
    pen = ImageDraw.Draw(page_image)
    for index, record in enumerate(islice(records, columns * rows)):
        x, y = index % columns * CELL + 4, index // columns * (CELL + 12 * LINES) + 4
        page_image.paste(view(out, record), (x, y))
        texts = [f"{question} -> {answer}" for question, answer, _ in turns(record)]
        lines = [text[start : start + _LETTERS] for text in texts for start in range(0, len(text), _LETTERS)]
        for line, text in enumerate(lines[:LINES]):
            pen.text((x, y + SIDE + 4 + 12 * line), text, fill="black")
    return page_image
