"""Photographs of single garments in ten classes (clothing-dataset-small, CC0).

The source's train split trains, its validation split is held out. A photograph gives several training views (random crops,
mirrored, turned, light and tint), rare classes more often; a held-out photograph gives one picture, squeezed to the square
as the tiling of `vedere-mini` does it.

Cost: about 8 ms a picture (JPEG decoding).
"""

from __future__ import annotations

import csv
import math
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
_QUESTIONS = (
    *("Which piece of clothing is this?",) * 4,
    "What garment is this?",
    "Which garment is shown?",
    "What clothing is this?",
    "What is this?",
)
PLURAL = {"pants", "shorts", "shoes"}


def phrase(name: str) -> str:
    """Return the name as it stands in a sentence: "a hat", "shoes"."""
    return name if name in PLURAL else article(name)


def photo_view(path: Path, rng: random.Random | None) -> Image.Image:
    """Read a photograph and squeeze it to the square; with `rng` a random view of it.

    A view shows 0.6 to 1 of the photograph's sides, half of them mirrored, half turned by up to 8 degrees (cut so that
    no corner is empty), all with a little other brightness, contrast and hue.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if rng is None:
        return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    angle = rng.uniform(-8, 8) if rng.random() < 0.5 else 0.0
    margin = math.cos(math.radians(angle)) + math.sin(math.radians(abs(angle)))
    common = rng.uniform(0.6, 1.0)
    width, height = (min(1.0, common * rng.uniform(0.9, 1.1) * margin) * side for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    large = SIDE if angle == 0 else math.ceil(SIDE * margin) + 2
    image = image.resize((large, large), Image.Resampling.BICUBIC, box=box)
    if angle:
        inset = (large - SIDE) // 2
        image = image.rotate(angle, Image.Resampling.BICUBIC).crop((inset, inset, inset + SIDE, inset + SIDE))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
    if rng.random() < 0.5:
        shift = rng.randint(-8, 8)  # of 256 steps around the colour circle
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([(step + shift) % 256 for step in range(256)])
        image = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return image


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
        name_it = Ask(question=rng.choice(_QUESTIONS), answer=name, question_type="name", facts=("name",))
        check = Ask(question=question, answer="yes" if told == name else "no", question_type="check", facts=("name",))
        other = rng.choice([other for other in NAMES.values() if other != name])
        either = [phrase(one) for one in (name, other)]
        rng.shuffle(either)
        choose = Ask(
            question=f"Which is it, {either[0]} or {either[1]}?", answer=name, question_type="choose", facts=("name",)
        )
        caption = f"a photo of {phrase(name)}"
        seen = Ask(question=rng.choice(CAPTION_PROMPTS), answer=caption, question_type="describe", facts=("name",))
        yield Item(
            image=photo_view(folder / file, rng if split == "train" else None),
            labels=(name, f"photo of {phrase(name)}"),
            captions=(caption,),
            alignment=(*captions_as_asks((caption,), rng), name_it),
            asks=tuple(weighted_order(rng, [(4.0, name_it), (0.8, check), (0.5, choose), (0.5, seen)])),
            key=file,
            licence="CC0-1.0",
            attribution="clothing-dataset-small (Alexey Grigorev and contributors)",
        )


KIND = Kind(
    name="garments",
    share=0.14,
    make=make,
    folder="clothing-cc0",
    looks_for=("labels.csv", "train", "validation"),
    ledger=("clothing-cc0",),
)
