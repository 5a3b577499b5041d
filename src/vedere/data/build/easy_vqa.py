"""easy-VQA: one coloured shape a picture, and ten written questions about it.

The data of the PyPI package `easy-vqa` (MIT), questions and answers as they stand, pictures as they are (64 px). Its train
split trains, its test split is held out.

Cost: a download at the first use (23 MB on disk); below 1 ms a picture.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vedere.data.build.record import Ask, Item, Kind, Split, article, captions_as_asks, stream
from vedere.packages import fetch_wheel

REQUIREMENT = "easy-vqa==1.0"
TURNS = 3
"""Questions of one picture that are used each time it comes up."""
_TRUTHS = ("yes", "no")
_NEGATIONS = {"not", "no"}
_COLOURS = ("black", "gray", "red", "green", "blue", "yellow", "teal", "brown")
_SHAPES = ("circle", "rectangle", "triangle")


def data_folder() -> Path:
    """Return the folder with the splits, fetched if it is not there.

    Raises:
        PackageError: the package cannot be had.
    """
    return fetch_wheel(REQUIREMENT) / "easy_vqa" / "data"


def ready() -> None:
    """Fetch the data.

    Raises:
        PackageError: the package cannot be had.
    """
    data_folder()


@lru_cache(maxsize=4)
def _questions(folder: Path) -> dict[int, tuple[tuple[str, str], ...]]:
    """Number of a picture -> its questions and answers."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        found[number].append((question, answer))
    return {number: tuple(pairs) for number, pairs in sorted(found.items())}


def _ask(question: str, answer: str) -> Ask:
    kind = "check" if answer in _TRUTHS else "shape" if answer in _SHAPES else "colour"
    return Ask(question=question, answer=answer, question_type=kind)


def _truths(pairs: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return what the answers give away: colour and shape, or one of them, or "shape"."""
    told: set[str] = set()
    for question, answer in pairs:
        words = set(question.rstrip("?").split())
        if answer not in _TRUTHS:
            told |= {answer, *(words & {*_SHAPES, *_COLOURS})}
        elif (answer == "yes") != bool(words & _NEGATIONS):
            told |= words & {*_SHAPES, *_COLOURS}
    return (*sorted(told & set(_COLOURS)), *(sorted(told & set(_SHAPES)) or ["shape"]))


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield pictures: in training again with their next questions where `count` is larger than the split."""
    place = data_folder() / ("train" if split == "train" else "test")
    questions = _questions(place)
    numbers = list(questions)
    stream(seed, "easy_vqa", split).shuffle(numbers)
    for index in range(count if split == "train" else min(count, len(numbers))):
        number, turn = numbers[index % len(numbers)], index // len(numbers)
        pairs = list(questions[number])
        random.Random(f"{seed}/easy_vqa/{number}").shuffle(pairs)
        first = turn * TURNS % len(pairs)
        asks = tuple(_ask(*pair) for pair in [*pairs[first:], *pairs[:first]])
        with Image.open(place / "images" / f"{number}.png") as opened:
            image = opened.convert("RGB")
        thing = " ".join(_truths(questions[number]))
        rng = stream(seed, "easy_vqa", split, "caption", index)
        yield Item(
            image=image,
            labels=(thing, article(thing)),
            captions=(article(thing),),
            alignment=(*captions_as_asks((article(thing),), rng), *asks[:TURNS]),
            asks=asks,
            key=f"{place.name}/{number}",
            licence="MIT",
            attribution="easy-VQA (Victor Zhou)",
        )


KIND = Kind(name="easy_vqa", share=0.08, make=make, per_picture=float(TURNS), ready=ready, ledger=("easy-vqa",))
