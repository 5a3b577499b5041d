"""Contact sheets: look at what the model will see, with question and answer below each picture.

Cost: one decoded JPEG a picture.
"""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

from vedere.data.build.record import SIDE, Split


def sheet(
    out: Path, kind: str, *, split: Split = "heldout", columns: int = 8, rows: int = 5, seed: int = 0
) -> Image.Image:
    """Return a contact sheet of one kind with the first question and answer below each picture."""
    path = out / ("heldout" if split == "heldout" else "instruction") / f"{kind}.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(records)
    page_image = Image.new("RGB", (columns * 170, rows * 170), "white")
    pen = ImageDraw.Draw(page_image)
    for index, record in enumerate(islice(records, columns * rows)):
        x, y = index % columns * 170, index // columns * 170
        with Image.open(out / record["image"]) as opened:
            opened.thumbnail((SIDE, SIDE))
            page_image.paste(opened, (x + 4, y + 4))
        question = record["conversations"][0]["value"].removeprefix("<image>\n")
        for line, text in enumerate((question[:28], question[28:56], "-> " + record["conversations"][1]["value"][:26])):
            pen.text((x + 4, y + 120 + 14 * line), text, fill="black")
    return page_image
