"""Standard errors of accuracies whose questions come in clusters, such as three about one video.

Questions of one cluster are right or wrong together, so counting them as independent makes intervals too narrow. The error here
is the clustered one of Miller, *Adding error bars to evals* (arXiv 2411.00640, equation 4), with the factor G / (G - 1) for few
clusters; of clusters of one question each it is the usual standard error of a mean. Accuracies whose denominator varies
(questions answered) are ratios: the same sum of squared residuals, divided by the answered ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence


def clustered_error(sums: Iterable[tuple[float, float]]) -> float | None:
    """Standard error of sum(credit) / sum(count) over clusters.

    Args:
        sums: (credit, count) of every cluster.

    Returns:
        The error on the scale of the credits; None with fewer than two clusters that count.
    """
    # Clusters are many, but few differ: three questions have ten pairs of right and answered.
    kinds = [(credit, count, times) for (credit, count), times in Counter(sums).items() if count]
    clusters = sum(times for *_, times in kinds)
    if clusters < 2:
        return None
    total = sum(count * times for _, count, times in kinds)
    ratio = sum(credit * times for credit, _, times in kinds) / total
    squares = sum(times * (credit - ratio * count) ** 2 for credit, count, times in kinds)
    return math.sqrt(squares * clusters / (clusters - 1)) / total


def paired_difference(
    one: Sequence[float], other: Sequence[float], clusters: Sequence[str]
) -> tuple[float, float | None]:
    """Mean of the differences ``one - other`` on the same questions, and its clustered standard error.

    Raises:
        ValueError: sequences of different length.
    """
    cells: dict[str, tuple[float, float]] = {}
    for left, right, name in zip(one, other, clusters, strict=True):
        credit, count = cells.get(name, (0.0, 0.0))
        cells[name] = (credit + left - right, count + 1)
    total = sum(count for _, count in cells.values())
    mean = sum(credit for credit, _ in cells.values()) / total if total else 0.0
    return mean, clustered_error(cells.values())
