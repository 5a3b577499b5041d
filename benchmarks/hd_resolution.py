"""4KHD's main figure in small: reading accuracy as the training limit of views grows, and as inference goes beyond it.

    python benchmarks/hd_resolution.py [--seeds 1] [--work runs/hd_resolution] [--quick]

The paper (arXiv 2404.06512, sec. 4) trains models at HD-9, 16 and 25 and evaluates each at its limit and above it: reading of
documents gets better with either. Here a model of the same architecture, with 56 px tiles and 0.4 M parameters (CLIP-like
tower, 2 x 2 merge, global and local views, row ends, separator, decoder with partial LoRA), learns to read drawn pages.

A page is a sheet of 4 x 4, 8 x 8, 12 x 12 or 16 x 16 characters, light on grey, with noise: up to 16 entries of a letter and a
digit at random places. The question is a letter, the answer the digit beside it; guessing gives 10 %. Pages are shown by scaled
identity, as XComposer-2.5 does: a character is 14 px wide if the limit allows 1, 4, 9 or 16 views for the four sizes, else
as much narrower as the limit asks for.

1. Pre-training, shared: sheets of 4 x 4, 6 x 6 and 8 x 8 characters at HD-1 and HD-4.
2. Fine-tuning, one model a training limit: pages of all four sizes at that limit.
3. Every model answers the same unseen pages at every limit, also above its own. A figure is the mean over the four sizes.

One thread, some seven minutes of it a seed. Whatever is finished is kept: weights in ``--work``, numbers in
``results/hd_resolution.json``, so a run that ends early goes on where it stopped. The figure is drawn from the numbers.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import string
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, machine, store
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file

from vedere.data.packing import Document, Pack, collate
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.decoder import DecoderConfig
from vedere.models.patches import PatchConfig
from vedere.models.xcomposer2 import XComposer2, XComposer2Config
from vedere.plan import HDPolicy, plan_media
from vedere.text.render import Span
from vedere.train.batch import Batch, make_batch
from vedere.train.loop import backward
from vedere.train.optim import Optimizer
from vedere.train.stages import OptimConfig, StageConfig
from vedere.vision.hd import hd_tiles

TILE, CELL = 56, 28  # side of a tile, side of a character in the page's own pixels
LETTERS = "ABCEFGHKLMNPRSTX"
BEGIN, READ, ASK = 10 + len(LETTERS), 11 + len(LETTERS), 12 + len(LETTERS)  # after digits and letters
LIMITS = (1, 4, 9, 16)
SHEETS = ((4, 4), (8, 8), (12, 16), (16, 16))  # characters a side, entries
SMALL = ((4, 4, 1), (4, 4, 1), (6, 6, 1), (8, 8, 4))  # what pre-training shows: characters a side, entries, limit
FIGURE = Path(__file__).parent.parent / "docs" / "hd-resolution.png"
POLICY = functools.partial(HDPolicy, tile=TILE, mode="identity", scale=0.5)  # characters of 28 px become 14
STAGE = StageConfig(name="sheets", data="")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is trained and measured."""

    pretraining: int = 2500
    tuning: int = 200
    documents: int = 24
    tuning_documents: int = 16
    pages: int = 24  # of each size


@functools.cache
def glyph(character: str) -> np.ndarray[Any, Any]:
    """How much of each pixel of its place a character covers, ``[CELL, CELL]``."""
    image = Image.new("L", (CELL, CELL))
    ImageDraw.Draw(image).text((CELL // 2, CELL // 2), character, 255, font=ImageFont.load_default(26), anchor="mm")
    return np.asarray(image, np.float32) / 255


@functools.cache
def noise() -> np.ndarray[Any, Any]:
    """Normal noise of 6 grey levels, of which every page takes a window."""
    return np.random.default_rng(0).normal(0, 6, (1000, 1000)).astype(np.float32)


def page(rng: random.Random, side: int, entries: int) -> tuple[Image.Image, list[tuple[str, str]]]:
    """A sheet of ``side`` x ``side`` characters, and its entries in reading order."""
    pixels = side * CELL
    ground, ink = rng.randint(70, 90), rng.randint(225, 255)
    sheet = np.full((pixels, pixels), ground, np.float32)
    places = sorted(rng.sample(range(side * (side // 2)), entries))
    written = []
    for letter, place in zip(rng.sample(LETTERS, entries), places, strict=True):
        row, column = divmod(place, side // 2)
        digit = rng.choice(string.digits)
        for number, character in enumerate(letter + digit):
            left = CELL * (2 * column + number)
            sheet[CELL * row : CELL * (row + 1), left : left + CELL] += (ink - ground) * glyph(character)
        written.append((letter, digit))
    x, y = rng.randrange(1000 - pixels), rng.randrange(1000 - pixels)
    noisy = np.clip(sheet + noise()[y : y + pixels, x : x + pixels], 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert("RGB"), written


def document(rng: random.Random, side: int, entries: int, limit: int, read: bool) -> Document:
    """A sheet with all its questions: every letter in turn, or, to ``read``, the whole sheet."""
    image, written = page(rng, side, entries)
    plan = plan_media(*image.size, POLICY(limit=limit))
    ids, types, labels, spans = [BEGIN], [0], [-100], []
    for kind, length in plan.spans:
        spans.append(Span(0, 0, len(ids), length, kind))
        ids += [0] * length
        types += [int(kind)] * length
        labels += [-100] * length
    ids.append(READ if read else ASK)
    labels.append(-100)
    if not read:
        rng.shuffle(written)
    for letter, digit in written:
        ids += [10 + LETTERS.index(letter), int(digit)]
        labels += [ids[-2] if read else -100, int(digit)]
    types += [0] * (len(ids) - len(types))
    return Document(
        name="sheet",
        ids=np.array(ids, np.int64),
        labels=np.array(labels, np.int64),
        span_types=np.array(types, np.uint8),
        spans=tuple(spans),
        tiles=hd_tiles(image, plan),
        grids=(plan.grid,),
    )


def shape() -> XComposer2Config:
    """The model."""
    return XComposer2Config(
        vision=ClipViTConfig(
            patches=PatchConfig(width=64, patch=14, tile=TILE, downsample=2, bias=False),
            layers=2,
            heads=4,
            ffn_size=192,
        ),
        decoder=DecoderConfig(
            hidden_size=96,
            ffn_size=192,
            layers=2,
            heads=4,
            kv_heads=4,
            head_dim=24,
            vocab_size=ASK + 1,
            rope_theta=10_000.0,
            max_positions=4096,
            partial_rank=16,
            partial_alpha=16.0,
        ),
    )


def packed(model: XComposer2, documents: list[Document], seed: int) -> Batch:
    """The documents as one batch."""
    pack: Pack = collate(documents)
    return make_batch(pack, STAGE, model, random.Random(seed))


def learn(model: XComposer2, draw: Any, steps: int, lr: float, seed: int, label: str, count: int) -> None:
    """Trains everything on ``count`` documents of ``draw`` a step."""
    optim = OptimConfig(lr=lr, warmup=50, final=0.05, weight_decay=0.05, beta2=0.95)
    optimizer, rng, recent = Optimizer(model.train(), optim, steps), random.Random(seed), 0.0
    for step in range(steps):
        batch = packed(model, [draw(rng) for _ in range(count)], step)
        loss, weight = backward(model, batch), float(batch.weights.sum())
        optimizer.step(weight)
        recent = 0.98 * recent + 0.02 * loss / weight if step else loss / weight
        if (step + 1) % 100 == 0:
            print(
                f"{label}: step {step + 1}, loss {recent:.3f}, {time.process_time():.0f} s", file=sys.stderr, flush=True
            )


@torch.no_grad()
def accuracy(model: XComposer2, limit: int, pages: int) -> dict[str, float]:
    """Share of right digits on unseen sheets by size, and the mean; the pages are the same for every model and limit."""
    model.eval()
    found = {}
    for sheet in SHEETS:
        rng = random.Random(f"test {sheet}")
        batch = packed(model, [document(rng, *sheet, limit, read=False) for _ in range(pages)], 0)
        hidden = model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels, None, batch.rows)
        right = model.decoder.logits(hidden).argmax(-1) == batch.targets
        found[f"{sheet[0]} x {sheet[0]}"] = float(right.float().mean())
    return found | {"mean": sum(found.values()) / len(found)}


def weights_of(model: XComposer2, path: Path, train: Any) -> None:
    """Loads what an earlier run made, or makes and keeps it."""
    if path.exists():
        model.load_state_dict(load_file(path))
        return
    train()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


Row = dict[str, dict[str, float]]  # inference limit -> what `accuracy` gives


def experiment(seed: int, work: Path, effort: Effort, done: dict[str, Row], keep: Callable[[], None]) -> None:
    """One seed; fills ``done[training limit][inference limit]`` and calls ``keep`` after each model."""
    torch.manual_seed(seed)
    model = XComposer2(shape())

    def small(rng: random.Random) -> Document:
        return document(rng, *rng.choice(SMALL), read=rng.random() < 0.4)

    weights_of(
        model,
        work / f"{seed}-pretrained.safetensors",
        lambda: learn(model, small, effort.pretraining, 1e-3, seed, f"seed {seed}, pre-training", effort.documents),
    )
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for trained in LIMITS:
        if str(trained) in done:
            continue

        def full(rng: random.Random, limit: int = trained) -> Document:
            return document(rng, *rng.choice(SHEETS), limit, read=False)

        model.load_state_dict(pretrained)
        label = f"seed {seed}, HD-{trained}"
        weights_of(
            model,
            work / f"{seed}-hd{trained}.safetensors",
            lambda draw=full, label=label: learn(
                model, draw, effort.tuning, 7e-4, seed + 100, label, effort.tuning_documents
            ),
        )
        done[str(trained)] = {str(limit): accuracy(model, limit, effort.pages) for limit in LIMITS}
        shown = {limit: round(row["mean"], 3) for limit, row in done[str(trained)].items()}
        print(f"{label}: {shown}", file=sys.stderr, flush=True)
        keep()


def means(seeds: dict[str, dict[str, Row]]) -> dict[str, dict[str, float]]:
    """Mean accuracy over sizes and seeds."""
    found: dict[str, dict[str, float]] = {}
    for trained in map(str, LIMITS):
        rows = [seed[trained] for seed in seeds.values() if trained in seed]
        if rows:
            found[trained] = {str(n): sum(row[str(n)]["mean"] for row in rows) / len(rows) for n in LIMITS}
    return found


def draw_figure(seeds: dict[str, dict[str, Row]], path: Path) -> None:
    """Accuracy over the inference limit, a line a training limit; thin lines are single seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for number, (trained, row) in enumerate(means(seeds).items()):
        colour = f"C{number}"
        for seed in seeds.values():
            if trained in seed:
                axes.plot(
                    range(len(LIMITS)), [100 * seed[trained][str(n)]["mean"] for n in LIMITS], colour, lw=0.6, alpha=0.5
                )
        axes.plot(
            range(len(LIMITS)),
            [100 * row[str(n)] for n in LIMITS],
            colour,
            marker="o",
            label=f"trained at HD-{trained}",
        )
        place = LIMITS.index(int(trained))
        axes.plot(place, 100 * row[trained], "o", color=colour, ms=11, mfc="none")
    axes.axhline(10, color="grey", lw=0.8, ls=":")
    axes.set_xticks(range(len(LIMITS)), [f"HD-{n}" for n in LIMITS])
    axes.set_xlabel("limit of views at inference (ring: the limit of training)")
    axes.set_ylabel("right answers on unseen pages, %")
    axes.set_ylim(0, 101)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Trains, measures, stores, draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/hd_resolution"))
    parser.add_argument("--quick", action="store_true", help="a few steps, for tests; prints and stores nothing")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    effort = Effort(pretraining=2, tuning=1, documents=2, tuning_documents=2, pages=2) if options.quick else Effort()
    path = RESULTS / "hd_resolution.json"
    seeds: dict[str, Any] = {}
    if not options.quick and path.exists():
        seeds = json.loads(path.read_text(encoding="utf-8"))["seeds"]
    parameters = sum(parameter.numel() for parameter in XComposer2(shape()).parameters())

    def keep() -> None:
        if not options.quick:
            store(
                "hd_resolution",
                {"parameters": parameters, "effort": asdict(effort), "mean": means(seeds), "seeds": seeds},
            )

    for seed in range(options.seeds):
        experiment(seed, options.work, effort, seeds.setdefault(str(seed), {}), keep)
    if options.quick:
        print(json.dumps({"machine": machine(), "seeds": seeds, "mean": means(seeds)}))
    draw_figure(seeds, options.figure)


if __name__ == "__main__":
    main()
