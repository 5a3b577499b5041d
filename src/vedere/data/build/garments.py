"""Photographs of single garments in ten classes (clothing-dataset-small, CC0).

The source's train split trains, its validation split is held out. A photograph gives several training pictures (random
crops, mirrored, brightness), rare classes more often; a held-out photograph gives one picture, squeezed to the square as
the tiling of `vedere-mini` does it.

Cost: about 5 ms a picture (JPEG decoding).
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageEnhance

from vedere.data.build.record import (
    CAPTION_PROMPTS,
    SIDE,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    stream,
    weighted_order,
)

NAMES = {
    "t-shirt": "t-shirt",
    "pants": "pants",
    "longsleeve": "long-sleeve top",
    "shirt": "shirt",
    "dress": "dress",
    "shorts": "shorts",
    "shoes": "shoes",
    "outwear": "jacket",
    "hat": "hat",
    "skirt": "skirt",
}
"""The source's labels in plain words: "longsleeve" holds long-sleeved tees and pullovers."""
PLURAL = {"pants", "shorts", "shoes"}


def phrase(name: str) -> str:
    """Return the name as it stands in a sentence: "a hat", "shoes"."""
    return name if name in PLURAL else article(name)


def photo_crop(path: Path, rng: random.Random | None) -> Image.Image:
    """Read a photograph and squeeze it to the square; with `rng` a random crop of it, perhaps mirrored."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if rng is not None:
        width, height = image.size
        keep_x, keep_y = rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.0)
        left, top = rng.uniform(0, 1 - keep_x) * width, rng.uniform(0, 1 - keep_y) * height
        image = image.crop((int(left), int(top), int(left + keep_x * width), int(top + keep_y * height)))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _rows(split: Split, folder: Path) -> list[tuple[str, str]]:
    wanted = "train" if split == "train" else "validation"
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [(row["file"], NAMES[row["label"]]) for row in csv.DictReader(file) if row["split"] == wanted]


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield up to `count` pictures of garments."""
    rows = _rows(split, folder)
    order = stream(seed, "garments", split)
    order.shuffle(rows)
    if split == "train":
        frequency = Counter(name for _, name in rows)
        weights = [frequency[name] ** -0.5 for _, name in rows]
        extra = max(0, count - len(rows))
        rows = rows[:count] + order.choices(rows, weights=weights, k=extra)
    for index, (file, name) in enumerate(rows[:count]):
        rng = stream(seed, "garments", split, index)
        told = name if rng.random() < 0.5 else rng.choice([other for other in NAMES.values() if other != name])
        question = f"Are these {told}?" if told in PLURAL else f"Is this {article(told)}?"
        name_it = Ask(
            question=rng.choice(("What garment is this?", "Which garment is shown?", "What clothing is this?")),
            answer=name,
            question_type="name",
        )
        check = Ask(question=question, answer="yes" if told == name else "no", question_type="check")
        caption = f"a photo of {phrase(name)}"
        seen = Ask(question=rng.choice(CAPTION_PROMPTS), answer=caption, question_type="describe")
        yield Item(
            image=photo_crop(folder / file, rng if split == "train" else None),
            labels=(name, f"photo of {phrase(name)}"),
            captions=(caption,),
            alignment=(*captions_as_asks((caption,), rng), name_it),
            asks=tuple(weighted_order(rng, [(3.0, name_it), (1.2, check), (0.5, seen)])),
            key=file,
            licence="CC0-1.0",
            attribution="clothing-dataset-small (Alexey Grigorev and contributors)",
        )


KIND = Kind(
    name="garments",
    share=0.13,
    make=make,
    per_picture=1.0,
    folder="clothing-cc0",
    looks_for=("labels.csv", "train", "validation"),
    ledger=("clothing-cc0",),
)
