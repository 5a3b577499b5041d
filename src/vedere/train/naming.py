"""Training of the stem's namer: what a picture of a built corpus shows as a whole, or nothing that has a name.

A question "What is this?" of a corpus has the name as its answer; those pictures are learnt with their names, and pictures of
other kinds (scenes, text, charts) as nothing, so that the namer is silent about them. The stem is frozen, so every picture is
looked at once, and the linear map (`vedere.models.namer`) is fitted to the kept features: AdamW with a one-cycle rate, dropout
and smoothed labels. Whole drawing styles and photographs are held out by the corpus.

Cost: 10 ms a picture to look, a few seconds a pass to fit 25,000 of them.

Axes: N pictures, S side, F pooled features, K names.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from vedere.data.build.blind import read_records, turns
from vedere.errors import RecordError
from vedere.models.namer import NAMES, Namer
from vedere.models.stem import EfficientNetLite0
from vedere.vision.pixels import normalise

NAMED = ("emoji", "garments")
WITHOUT_NAMES = ("scenes", "words", "charts", "easy_vqa", "documents", "boxes", "drawings")


@dataclass(frozen=True, kw_only=True)
class NamingConfig:
    """How the namer is trained.

    Attributes:
        side: Side S of the tiles that it is made for, in pixels.
        most: Most pictures of a kind without names.
        passes: Over all pictures.
        batch: Pictures of a step.
        lr: Peak rate.
        weight_decay: Of the map.
        dropout: Of pooled features.
        smoothing: Of labels.
        seed: Of order and dropout.
    """

    side: int = 160
    most: int = 2500
    passes: int = 14
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.3
    dropout: float = 0.3
    smoothing: float = 0.1
    seed: int = 0


def shown(corpus: Path, split: str, most: int) -> Iterator[tuple[Path, str]]:
    """Pictures of a corpus with the name of what they show, empty for pictures of other kinds.

    Args:
        corpus: Folder that ``vedere data build`` wrote.
        split: ``instruction`` or ``heldout``.
        most: Most pictures of a kind without names.
    """
    for kind, records in itertools.groupby(read_records(corpus / split), key=lambda record: str(record["kind"])):
        if kind in NAMED:
            for record in records:
                name = next((answer for _, answer, asked in turns(record) if asked == "name"), "")
                if name:
                    yield corpus / record["image"], name
        elif kind in WITHOUT_NAMES:
            for record in itertools.islice(records, most):
                yield corpus / record["image"], ""


@torch.no_grad()
def look(stem: EfficientNetLite0, paths: Iterable[Path], side: int, say: Callable[[str], None]) -> Tensor:
    """Pooled features of pictures squeezed to the side of a tile: ``[N, F]`` float32."""
    found: list[Tensor] = []
    waiting = iter(paths)
    while batch := list(itertools.islice(waiting, 32)):
        pictures = []
        for path in batch:
            with Image.open(path) as image:
                pictures.append(
                    np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
                )
        pixels = normalise(torch.from_numpy(np.stack(pictures)), "imagenet")
        features = stem(pixels.to(next(stem.parameters()).dtype)).permute(0, 2, 3, 1)
        found.append(Namer.pooled(features))
        if len(found) % 100 == 0:
            say(f"{32 * len(found)} pictures")
    return torch.cat(found)


def fit(features: Tensor, classes: Tensor, names: int, config: NamingConfig) -> Namer:
    """The map, fitted to standardised features, the standardisation folded into it.

    Args:
        features: ``[N, F]``.
        classes: ``[N]``; 0 is nothing.
        names: K.
        config: How.
    """
    torch.manual_seed(config.seed)
    mean, scale = features.mean(0), features.std(0) + 1e-5
    standard = (features - mean) / scale
    namer = Namer(names, features.shape[1] // 2)
    optimizer = torch.optim.AdamW(namer.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.passes * -(-len(standard) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps)
    for _ in range(config.passes):
        for rows in torch.randperm(len(standard)).split(config.batch):
            logits = namer.map(F.dropout(standard[rows], config.dropout))
            loss = F.cross_entropy(logits, classes[rows], label_smoothing=config.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        namer.map.weight.div_(scale)
        namer.map.bias.sub_(namer.map.weight @ mean)
    return namer


def measure(namer: Namer, features: Tensor, told: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    """Of pictures with names: named rightly, wrongly, not at all; of the others: named all the same."""
    with torch.no_grad():
        found = Namer.names_of(namer.map(features), names)
    with_name = [(f, t) for f, t in zip(found, told, strict=True) if t]
    without = [f for f, t in zip(found, told, strict=True) if not t]
    return {
        "named": len(with_name),
        "right": sum(f == t for f, t in with_name) / max(1, len(with_name)),
        "silent": sum(not f for f, _ in with_name) / max(1, len(with_name)),
        "others": len(without),
        "others_named": sum(bool(f) for f in without) / max(1, len(without)),
    }


def train_namer(
    config: NamingConfig, corpus: Path, out: Path, stem: EfficientNetLite0, say: Callable[[str], None] = print
) -> Mapping[str, Any]:
    """Trains on a corpus and writes ``out`` (safetensors in bfloat16, names in its metadata), figures beside it.

    Args:
        config: How.
        corpus: Folder that ``vedere data build`` wrote, with at least one kind whose pictures have names.
        out: File of the weights.
        stem: With its weights.
        say: Receives progress lines.

    Returns:
        Figures on the held-out pictures.

    Raises:
        RecordError: no picture of the corpus has a name.
    """
    pictures = list(shown(corpus, "instruction", config.most))
    names = tuple(sorted({name for _, name in pictures if name}))
    if not names:
        raise RecordError(
            f"no picture of {corpus} has a name; build the corpus with one of the kinds {', '.join(NAMED)}"
        )
    number = {"": 0} | {name: index for index, name in enumerate(names, 1)}
    say(f"{len(pictures)} pictures, {len(names)} names")
    stem = stem.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = look(stem, (path for path, _ in pictures), config.side, say)
    namer = fit(features, torch.tensor([number[name] for _, name in pictures]), len(names), config)
    weights = {key: tensor.detach().to(torch.bfloat16).contiguous() for key, tensor in namer.state_dict().items()}
    namer.load_state_dict(weights)  # what is measured is what is written
    write_atomically(out, lambda path: save_file(weights, path, metadata={NAMES: json.dumps(names)}))
    held_out = list(shown(corpus, "heldout", config.most))
    seen = look(stem, (path for path, _ in held_out), config.side, say)
    figures: dict[str, Any] = {"pictures": len(pictures), "names": len(names)}
    figures |= measure(namer, seen, [name for _, name in held_out], names)
    for kind in NAMED:
        rows = [row for row, (path, _) in enumerate(held_out) if kind in path.parts]
        figures[kind] = measure(namer, seen[rows], [held_out[row][1] for row in rows], names) if rows else None
    text = json.dumps(figures, indent=2) + "\n"

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(out.with_suffix(".json"), write)
    say(json.dumps(figures))
    return figures
