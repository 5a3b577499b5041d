"""Figures of the experiments on vedere-mini's recipe: ``docs/models/mini-EXPERIMENT.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parents[1] / "docs" / "models"


def new_figure(columns: int, width: float, rows: int = 1) -> Any:
    """(figure, ``[rows, columns]`` axes, pyplot) for a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height = 4.0 if rows == 1 else 2.6 * rows
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    return figure, axes, plt


def keep_figure(figure: Any, plt: Any, name: str) -> None:
    """Writes ``docs/models/mini-NAME.png``."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"mini-{name}.png", dpi=110)
    plt.close(figure)


def draw_variants(name: str, variants: dict[str, Any], texts: dict[str, Any]) -> None:
    """Bars: exact answers and loss of each kind by variant; with ``texts``, perplexity too."""
    figure, (axes,), plt = new_figure(3 if texts else 2, 14)
    kinds = sorted({kind for facts in variants.values() for kind in facts["held_out"]})
    width = 0.8 / max(1, len(variants))
    for number, (label, facts) in enumerate(variants.items()):
        places = [place + width * (number - (len(variants) - 1) / 2) for place in range(len(kinds))]
        for axis, key in zip(axes, ("exact", "loss"), strict=False):
            mean = facts[f"mean_{key}"]
            values = [facts["held_out"].get(kind, {}).get(key, math.nan) for kind in kinds]
            axis.bar(places, values, width, label=f"{label} (mean {mean:.3g})")
    for axis, title in zip(axes, ("held-out exact answers", "held-out loss"), strict=False):
        axis.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", fontsize=8)
        axis.set_title(title)
        axis.legend(fontsize=7)
    if texts:
        bars = axes[2].bar(list(texts), [facts["perplexity"] for facts in texts.values()])
        axes[2].bar_label(bars, fmt="%.4g")
        axes[2].set_xticks(range(len(texts)), list(texts), rotation=30, ha="right")
        axes[2].set_title("perplexity of text")
    keep_figure(figure, plt, name)


def draw_resolution(variants: dict[str, Any]) -> None:
    """Lines: exact answers and loss of each kind over the tokens of a picture."""
    figure, (axes,), plt = new_figure(2, 12)
    kinds = sorted({kind for facts in variants.values() for kind in facts["held_out"]})
    tokens = [facts["picture_tokens"] for facts in variants.values()]
    for axis, key in zip(axes, ("exact", "loss"), strict=True):
        for kind in kinds:
            values = [facts["held_out"].get(kind, {}).get(key, math.nan) for facts in variants.values()]
            axis.plot(tokens, values, marker="o", label=kind)
        labels = [f"{facts['picture_tokens']}\n{name}" for name, facts in variants.items()]
        axis.set_xticks(tokens, labels, fontsize=8)
        axis.set(xlabel="tokens and side of a picture", title=f"held-out {key}")
    axes[0].legend(fontsize=7, ncols=2)
    keep_figure(figure, plt, "resolution")


def draw_samples(kinds: dict[str, Any], shipped: Sequence[dict[str, Any]]) -> None:
    """A panel for each kind and figure: points, fitted curve, 95 % band, stars for what the shipped weights reached."""
    columns = min(4, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure, axes, plt = new_figure(columns, 3.5 * columns, 2 * rows)
    for half, key in enumerate(("exact", "loss")):
        for number, (kind, facts) in enumerate(kinds.items()):
            axis = axes[half * rows + number // columns][number % columns]
            axis.plot(facts["points"]["samples"], facts["points"][key], "o", markersize=3, color=f"C{half}")
            curve = facts[key].get("curve")
            if curve:
                axis.plot(curve["samples"], curve["value"], color=f"C{half}", linewidth=1)
                axis.fill_between(curve["samples"], curve["low"], curve["high"], color=f"C{half}", alpha=0.15)
            stars = [(weights["samples"], weights["exact"][kind]) for weights in shipped if kind in weights["exact"]]
            if stars and key == "exact":
                axis.plot(*zip(*stars, strict=True), "*", markersize=9, color="C3", label="shipped weights")
                axis.legend(fontsize=8, loc="upper left")
            axis.set(xscale="log", title=f"{kind}: {key}")
            if key == "exact":
                axis.set_ylim(0, 1)
    for axis in axes[-1]:
        axis.set_xlabel("samples seen")
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    keep_figure(figure, plt, "samples")
