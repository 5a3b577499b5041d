"""Training of the stem's reader: which character stands under each cell of rendered text.

The signal is dense: every cell of 8 px has a label (`vedere.models.reader`), so a picture teaches some hundred answers and not
one word. Text is rendered as it is needed, in all typefaces but the held-out ones, on pictures of many shapes that are
squeezed to the square as the model's preprocessing does it; some pictures hold no text at all. AdamW, short warm-up, cosine
to zero over the time that was given. Measured on held-out words in held-out typefaces.

Cost: some 100 pictures a second and core with bfloat16 convolutions; 20 minutes give a useful reader.

Axes: N pictures, S side, h x w cells.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from vedere.atomic import write_atomically
from vedere.data.build.lettering import Look, draw_look, draw_text
from vedere.data.build.scene_questions import make as make_scenes
from vedere.data.build.typefaces import Use, typefaces
from vedere.data.build.vocabulary import draw_letters, draw_number, draw_word, in_some_case
from vedere.models.reader import CELL, CHARACTERS, CLASSES, NOTHING, Reader
from vedere.models.transcript import read_lines
from vedere.vision.pixels import normalise

Box = tuple[float, float, float, float]
SIZES = (
    (160, 160),
    (160, 160),
    (160, 160),
    (160, 160),
    (320, 96),
    (448, 128),
    (240, 160),
    (320, 200),
    (200, 100),
    (120, 200),
)
NOTHING_WEIGHT = 0.25  # most cells are empty
SCENES = 0.06  # share of pictures without text


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """How the reader is trained.

    Attributes:
        side: Side S of the tiles it is made for, in pixels.
        batch: Pictures of a step.
        lr: Peak rate.
        minutes: Time; the rate reaches zero at its end.
        workers: Processes that render.
        seed: Of text, drawing and weights.
    """

    side: int = 160
    batch: int = 64
    lr: float = 2e-3
    minutes: float = 20.0
    workers: int = 1
    seed: int = 0


def label_cells(characters: Sequence[tuple[str, Box]], size: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Labels of a picture that is squeezed to a square.

    A cell is labelled with the character whose box holds its middle; a character too narrow or flat for that labels the
    cell its own middle lies in.

    Args:
        characters: (character, (left, top, right, bottom)) in pixels of the picture; others than `CHARACTERS` are left out.
        size: Width and height of the picture.
        side: S.

    Returns:
        (classes int64 ``[h, w]``, middle columns float32 ``[h, w]``).
    """
    cells = side // CELL
    classes = torch.full((cells, cells), NOTHING)
    middle = torch.zeros(cells, cells)
    across, down = cells / size[0], cells / size[1]
    for character, (left, top, right, bottom) in characters:
        number = CHARACTERS.find(character) + 1
        if number == 0:
            continue
        column = min(cells - 1, max(0, math.floor((left + right) / 2 * across)))
        row = min(cells - 1, max(0, math.floor((top + bottom) / 2 * down)))
        rows = slice(min(row, max(0, math.ceil(top * down - 0.5))), max(row, math.ceil(bottom * down - 0.5) - 1) + 1)
        columns = slice(
            min(column, max(0, math.ceil(left * across - 0.5))), max(column, math.ceil(right * across - 0.5) - 1) + 1
        )
        classes[rows, columns] = number
        middle[rows, column] = 1.0
    return classes, middle


def draw_lines(use: Use, rng: random.Random) -> list[str]:
    """Lines of a picture: mostly one word or number, sometimes two words, random letters, or several lines."""

    def word() -> str:
        return in_some_case(draw_word(use, rng, 2, 10), rng)

    if use == "heldout":  # words are unseen; any number may come up in training
        return [in_some_case(draw_word(use, rng, 4, 9), rng) if rng.random() < 0.75 else draw_number(rng)]
    group = rng.random()
    if group < 0.45:
        return [word()]
    if group < 0.65:
        return [draw_number(rng, 1, 6)]
    if group < 0.8:
        return [in_some_case(draw_letters(rng), rng)]
    if group < 0.88:
        return [word() + rng.choice((" ", " ", "-", ", ", ": ", "/", "'", " & ")) + word()]
    if group < 0.94:
        return [
            f"{rng.choice(('$', '', ''))}{draw_number(rng, 1, 3)}.{rng.randrange(100):02d}{rng.choice(('', '', '%', '!'))}"
        ]
    return [
        " ".join(word() for _ in range(rng.randint(1, 2))) + rng.choice(("", ".", "!", "?"))
        for _ in range(rng.randint(2, 4))
    ]


def render_example(split: Use, seed: int, number: int, side: int) -> tuple[Tensor, Tensor, Tensor, str]:
    """One picture with its labels: uint8 ``[3, S, S]``, classes, middle columns, and the text ("" for several lines)."""
    rng = random.Random(f"{seed}/{split}/{number}")
    if split == "train" and rng.random() < SCENES:
        shown = next(iter(make_scenes("train", 1, rng.getrandbits(32), Path()))).image
        assert shown is not None  # scenes are single pictures
        image, text, characters = shown, "", []
    else:
        face = rng.choice(typefaces(split))
        lines = draw_lines(split, rng)
        look = Look() if split == "heldout" and rng.random() < 0.5 else draw_look(rng)
        fill = 1.0 - 0.5 * rng.random() ** 2
        drawn = draw_text(lines, face, rng.choice(SIZES), rng, look=look, fill=fill)
        image = drawn.image
        boxes = np.concatenate([drawn.quads.min(1), drawn.quads.max(1)], axis=1).tolist()
        characters = list(zip(drawn.characters, map(tuple, boxes), strict=True))
        text = drawn.characters if len(lines) == 1 else ""
    classes, middle = label_cells(characters, image.size, side)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), classes, middle, text


class _Stream(torch.utils.data.IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless batches, each worker with numbers of its own."""

    def __init__(self, config: ReadingConfig) -> None:
        self.config = config

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        info = torch.utils.data.get_worker_info()
        number, step = (info.id, info.num_workers) if info else (0, 1)
        while True:
            examples = []
            for _ in range(self.config.batch):
                examples.append(render_example("train", self.config.seed, number, self.config.side)[:3])
                number += step
            pixels, classes, middle = zip(*examples, strict=True)
            yield torch.stack(pixels), torch.stack(classes), torch.stack(middle)


def reading_loss(logits: Tensor, classes: Tensor, middle: Tensor) -> Tensor:
    """Cross-entropy of the classes (empty cells weigh less) plus that of middle columns, both in float32.

    Args:
        logits: ``[N, K + 1, h, w]``.
        classes: ``[N, h, w]``.
        middle: ``[N, h, w]``.
    """
    weight = torch.ones(CLASSES)
    weight[NOTHING] = NOTHING_WEIGHT
    of_class = F.cross_entropy(logits[:, :CLASSES].float(), classes, weight=weight)
    scale = torch.full_like(middle, 3.0)
    of_middle = F.binary_cross_entropy_with_logits(logits[:, CLASSES].float(), middle, pos_weight=scale)
    return of_class + of_middle


@torch.no_grad()
def measure(reader: Reader, config: ReadingConfig, pictures: int = 400) -> dict[str, float]:
    """Share of cells under characters that are right, and of single lines read exactly, on held-out text.

    Args:
        reader: What is measured.
        config: Side and seed.
        pictures: How many.
    """
    examples = [render_example("heldout", config.seed + 1, number, config.side) for number in range(pictures)]
    right = cells = exact = lines = 0
    for start in range(0, pictures, 50):
        part = examples[start : start + 50]
        logits = reader.logits(normalise(torch.stack([e[0] for e in part]), "imagenet"))
        for found, (_, classes, _, text) in zip(logits, part, strict=True):
            under = classes != NOTHING
            right += int((found[:CLASSES].argmax(0)[under] == classes[under]).sum())
            cells += int(under.sum())
            if text and all(character in CHARACTERS for character in text):
                lines += 1
                exact += " ".join(line.text for line in read_lines(Reader.chances(found[None])[0])) == text
    return {"cells": right / max(1, cells), "exact": exact / max(1, lines), "lines": lines}


def _save(reader: Reader, out: Path) -> None:
    weights = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in reader.state_dict().items()}
    write_atomically(out, lambda path: save_file(weights, path))


def train_reader(
    config: ReadingConfig, out: Path, say: Callable[[str], None] = print, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Trains and writes ``out`` (safetensors, bfloat16) every few minutes and at the end, metrics beside it.

    Args:
        config: How.
        out: File of the weights; if it exists, training starts from it.
        say: Receives progress lines.
        clock: Seconds; replaced in tests.

    Returns:
        The last figures.
    """
    torch.manual_seed(config.seed)
    reader = Reader()
    if out.is_file():
        from vedere.models.shards import read_file

        reader.load_state_dict(read_file(out)[0])
        say(f"going on from {out}")
    reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(reader.parameters(), lr=config.lr, weight_decay=0.01, fused=True)
    batches = torch.utils.data.DataLoader(_Stream(config), batch_size=None, num_workers=config.workers)
    start = last = clock()
    total = 60 * config.minutes
    figures: dict[str, Any] = {}
    for steps, (pixels, classes, middle) in enumerate(batches, start=1):
        progress = (clock() - start) / total
        rate = config.lr * min(1.0, steps / 100) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = reader.logits(normalise(pixels, "imagenet"))
        loss = reading_loss(logits, classes, middle)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        finished = progress >= 1.0
        if finished or clock() - last > 120 or steps == 50:
            last = clock()
            _save(reader, out)
            figures = {"step": steps, "pictures": steps * config.batch, "loss": float(loss.detach()), "lr": rate}
            figures |= {"minutes": (clock() - start) / 60, **measure(reader, config)}
            with out.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
            say(json.dumps(figures))
        if finished:
            break
    return figures
