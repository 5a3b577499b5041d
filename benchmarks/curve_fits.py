"""How a skill grows with samples seen, and how far that may be extrapolated.

The share of exact answers p is fitted as logit(p) = a + b log10(n); a loss as the power law loss = floor + A n^-alpha, its
floor by a search, the rest by least squares on logarithms. Uncertainty is what 400 resamplings of the residuals give (95 %);
the extrapolation comes with that band and never without it. The band knows nothing of a model's own limits: a skill that is
about to saturate, or has not begun to rise, is outside of what either form can say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RESAMPLINGS = 400
LEAST_POINTS = 4
Array = np.ndarray[Any, np.dtype[np.float64]]
Model = Callable[[Array], Array]


def logit_linear(n: Array, p: Array, questions: Array) -> tuple[dict[str, float], Model]:
    """Parameters and curve of logit(p) = a + b log10(n); shares of 0 and 1 count as half a question from the end."""
    p = np.clip(p, 0.5 / questions, 1 - 0.5 / questions)
    b, a = np.polyfit(np.log10(n), np.log(p / (1 - p)), 1)
    return {"a": float(a), "b": float(b)}, lambda x: 1 / (1 + np.exp(-(a + b * np.log10(x))))


def power_law(n: Array, loss: Array) -> tuple[dict[str, float], Model]:
    """Parameters and curve of loss = floor + A n^-alpha."""
    best: tuple[float, float, float, float] | None = None
    for share in np.linspace(0.0, 0.99, 100):
        floor = share * float(loss.min())
        slope, height = np.polyfit(np.log(n), np.log(loss - floor), 1)
        error = float(np.square(floor + np.exp(height + slope * np.log(n)) - loss).sum())
        if best is None or error < best[0]:
            best = (error, floor, float(np.exp(height)), -float(slope))
    assert best is not None
    _, floor, scale, alpha = best
    return {"floor": floor, "scale": scale, "alpha": alpha}, lambda x: floor + scale * x**-alpha


def fit(samples: Sequence[float], values: Sequence[float], questions: Sequence[int] | None = None) -> dict[str, Any]:
    """Fits shares (with the number of questions behind each) or losses (without), and looks ahead.

    Args:
        samples: Samples seen, above 0.
        values: Shares of exact answers, or losses.
        questions: Questions behind each share; None for losses.

    Returns:
        Form, parameters with their 95 % interval, residual spread, and the curve with its band from the first point to
        ten times the last; a reason instead where there are too few points.
    """
    n, y = np.asarray(samples, dtype=float), np.asarray(values, dtype=float)
    if len(np.unique(n)) < LEAST_POINTS:
        return {"form": None, "reason": f"{len(np.unique(n))} points; at least {LEAST_POINTS} are needed"}
    counts = None if questions is None else np.asarray(questions, dtype=float)

    def of(values: Array) -> tuple[dict[str, float], Model]:
        if counts is None:
            return power_law(n, np.maximum(values, 1e-6))
        return logit_linear(n, np.clip(values, 0, 1), counts)

    parameters, curve = of(y)
    residuals = y - curve(n)
    rng = np.random.default_rng(0)
    ahead = np.geomspace(n.min(), 10 * n.max(), 60)
    found, curves = [], []
    for _ in range(RESAMPLINGS):
        again, other = of(curve(n) + rng.choice(residuals, len(n)))
        found.append(again)
        curves.append(other(ahead))
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return {
        "form": "loss = floor + scale n^-alpha" if counts is None else "logit(p) = a + b log10(n)",
        "parameters": {
            name: {"value": value, "interval": np.percentile([each[name] for each in found], [2.5, 97.5]).tolist()}
            for name, value in parameters.items()
        },
        "residual_spread": float(residuals.std()),
        "points": len(n),
        "curve": {
            "samples": ahead.tolist(),
            "value": curve(ahead).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        },
    }


def samples_for(
    goal: float, samples: Sequence[float], shares: Sequence[float], questions: Sequence[int]
) -> dict[str, Any]:
    """How many samples a share would take to reach a goal, if logit(p) = a + b log10(n) held beyond what was measured.

    The points are few, so what is uncertain is taken from the questions behind them: each share is drawn again from its
    binomial distribution, and the line is fitted to every such draw.

    Returns:
        ``samples``: median, 2.5 and 97.5 percentile over the draws, None where that draw never gets there or needs more
        than a thousand times the samples seen; ``never``: share of such draws.
    """
    n, counts = np.asarray(samples, dtype=float), np.asarray(questions, dtype=float)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLINGS):
        drawn = rng.binomial(counts.astype(int), np.asarray(shares, dtype=float)) / counts
        parameters, _ = logit_linear(n, drawn, counts)
        rise = np.log(goal / (1 - goal)) - parameters["a"]
        power = rise / parameters["b"] if parameters["b"] > 0 else np.inf
        found.append(10.0**power if power < np.log10(1000 * n.max()) else np.inf)
    ends = np.percentile(found, [50, 2.5, 97.5], method="nearest")
    return {
        "goal": goal,
        "samples": [float(end) if np.isfinite(end) else None for end in ends],
        "never": float(np.mean(np.isinf(found))),
    }
