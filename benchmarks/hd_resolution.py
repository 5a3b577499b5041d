"""4KHD's main figure in small: reading accuracy as the training limit of views grows, and as inference goes beyond it.

    python benchmarks/hd_resolution.py [--seeds 3] [--work runs/hd_resolution] [--quick]

The paper (arXiv 2404.06512, sec. 4) trains models at HD-9, 16 and 25 and evaluates each at its limit and above it: reading of
documents gets better with either. Here a model of the same architecture, with 56 px tiles and 0.4 M parameters (CLIP-like
tower, 2 x 2 merge, global and local views, row ends, separator, decoder with partial LoRA), learns to read drawn pages.

A page is a sheet of 12 x 12 characters on 336 x 336 px: 16 entries of a letter and a digit, dark or light grey, with noise. The
question is a letter, the answer the digit beside it; guessing gives 10 %. HD-N shows the page as sqrt(N) x sqrt(N) tiles, so a
character is 4.7 px wide at HD-1, 9.3 at HD-4, 14 at HD-9, 18.7 at HD-16.

1. Pre-training, shared: small sheets at HD-1 and HD-4 with characters 9 to 14 px wide, then 9 to 19 px wide.
2. Fine-tuning, one model a training limit: full sheets at that limit, and a quarter small ones at HD-1.
3. Every model answers the same unseen pages at every limit, also above its own.

One thread, some eight minutes of it a seed. Whatever is finished is kept: weights in ``--work``, numbers in
``results/hd_resolution.json``, so a run that ends early goes on where it stopped. The figure is drawn from the numbers.
"""

from __future__ import annotations

import argparse
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
TRAINED, LIMITS = (1, 4, 9), (1, 4, 9, 16)
SHEET = (12, 16)  # characters a side, entries
SMALL = (  # what the parts of pre-training show: characters a side, entries, limit
    ((4, 4, 1), (4, 4, 1), (6, 6, 1), (8, 8, 4)),
    ((3, 3, 1), (4, 4, 1), (6, 6, 1), (8, 8, 4)),
)
BESIDE = ((3, 3, 1), (4, 4, 1), (6, 6, 1))  # what fine-tuning shows beside full sheets
FIGURE = Path(__file__).parent.parent / "docs" / "hd-resolution.png"
STAGE = StageConfig(name="sheets", data="")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is trained and measured."""

    pretraining: tuple[int, int] = (2500, 700)
    tuning: int = 400
    documents: int = 24
    tuning_documents: int = 16
    pages: int = 120


def page(rng: random.Random, side: int, entries: int) -> tuple[Image.Image, list[tuple[str, str]]]:
    """A sheet of ``side`` x ``side`` characters, and its entries in reading order."""
    pixels = side * CELL
    image = Image.new("L", (pixels, pixels), rng.randint(70, 90))
    draw, font, ink = ImageDraw.Draw(image), ImageFont.load_default(26), rng.randint(225, 255)
    places = sorted(rng.sample(range(side * (side // 2)), entries))
    written = []
    for letter, place in zip(rng.sample(LETTERS, entries), places, strict=True):
        row, column = divmod(place, side // 2)
        digit = rng.choice(string.digits)
        for number, character in enumerate(letter + digit):
            middle = (CELL * (2 * column + number) + CELL // 2, CELL * row + CELL // 2)
            draw.text(middle, character, ink, font=font, anchor="mm")
        written.append((letter, digit))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 6, (pixels, pixels))
    noisy = np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert("RGB"), written


def document(rng: random.Random, side: int, entries: int, limit: int, read: bool) -> Document:
    """A sheet with all its questions: every letter in turn, or, to ``read``, the whole sheet."""
    image, written = page(rng, side, entries)
    plan = plan_media(*image.size, HDPolicy(tile=TILE, limit=limit))
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
def accuracy(model: XComposer2, limit: int, pages: int) -> float:
    """Share of right digits on unseen sheets; the pages are the same for every model and limit."""
    model.eval()
    right = asked = 0
    for start in range(0, pages, 20):
        rng = random.Random(f"test {start}")
        batch = packed(model, [document(rng, *SHEET, limit, read=False) for _ in range(min(20, pages - start))], 0)
        hidden = model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels, None, batch.rows)
        right += int((model.decoder.logits(hidden).argmax(-1) == batch.targets).sum())
        asked += len(batch.targets)
    return right / asked


def weights_of(model: XComposer2, path: Path, train: Any) -> None:
    """Loads what an earlier run made, or makes and keeps it."""
    if path.exists():
        model.load_state_dict(load_file(path))
        return
    train()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def experiment(
    seed: int, work: Path, effort: Effort, done: dict[str, dict[str, float]], keep: Callable[[], None]
) -> None:
    """One seed; fills ``done[training limit][inference limit]`` and calls ``keep`` after each model."""
    torch.manual_seed(seed)
    model = XComposer2(shape())
    for part, (steps, mix) in enumerate(zip(effort.pretraining, SMALL, strict=True)):

        def small(rng: random.Random, mix: Any = mix) -> Document:
            return document(rng, *rng.choice(mix), read=rng.random() < 0.4)

        label = f"seed {seed}, pre-training {part + 1}"
        weights_of(
            model,
            work / f"{seed}-pretrained-{part + 1}.safetensors",
            lambda draw=small, steps=steps, label=label: learn(model, draw, steps, 1e-3, seed, label, effort.documents),
        )
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for trained in TRAINED:
        if str(trained) in done:
            continue

        def full(rng: random.Random, limit: int = trained) -> Document:
            if rng.random() < 0.25:
                return document(rng, *rng.choice(BESIDE), read=False)
            return document(rng, *SHEET, limit, read=False)

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
        print(f"{label}: {done[str(trained)]}", file=sys.stderr, flush=True)
        keep()


def means(seeds: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean accuracy over the seeds that have the cell."""
    found: dict[str, dict[str, float]] = {}
    for trained in map(str, TRAINED):
        rows = [seed[trained] for seed in seeds.values() if trained in seed]
        if rows:
            found[trained] = {str(n): sum(row[str(n)] for row in rows) / len(rows) for n in LIMITS}
    return found


def draw_figure(seeds: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Accuracy over the inference limit, a line a training limit; thin lines are single seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for number, (trained, row) in enumerate(means(seeds).items()):
        colour = f"C{number}"
        for seed in seeds.values():
            if trained in seed:
                axes.plot(range(len(LIMITS)), [100 * seed[trained][str(n)] for n in LIMITS], colour, lw=0.6, alpha=0.5)
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/hd_resolution"))
    parser.add_argument("--quick", action="store_true", help="a few steps, for tests; prints and stores nothing")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    effort = (
        Effort(pretraining=(2, 1), tuning=1, documents=2, tuning_documents=2, pages=2) if options.quick else Effort()
    )
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
