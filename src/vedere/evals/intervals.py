"""How sure a rate is, and a difference of two rates on the same questions: closed forms and one seeded bootstrap.

* Wilson's score interval for a share of independent questions (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927): it stays in
  [0, 1] and is not empty at 0 or n of n, where the textbook's interval is.
* Questions that share a picture, a clip or a request are not independent. Clustered standard errors (`vedere.evals.clusters`;
  E. Miller, arXiv 2411.00640, sec. 2.2) add deviations up within a cluster before they are squared. Every question its own
  cluster gives the plain standard error.
* Two models on the same questions are compared by the differences question by question, not by two intervals that overlap:
  clustered normal interval, percentile bootstrap over clusters, and McNemar's exact test for right and wrong.

Everything is a function of its arguments; the bootstrap draws from its seed.

Cost: linear; the bootstrap takes ``draws`` times the number of clusters, in blocks of about 8 MB.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vedere.errors import RecordError
from vedere.evals.clusters import clustered_error

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        value: The mean; 0 with no questions.
        low: Lower end.
        high: Upper end.
        n: Questions.
        clusters: Groups of questions that count as one draw.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same questions; differences are second minus first.

    Attributes:
        difference: Mean difference with its clustered interval.
        bootstrap: Ends of the percentile interval over clusters.
        only_first: Questions that only the first has right (a higher credit).
        only_second: Questions that only the second has right.
        p: McNemar's exact two-sided probability under no difference; it knows no clusters.
    """

    difference: Estimate
    bootstrap: tuple[float, float]
    only_first: int
    only_second: int
    p: float


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Ends of Wilson's interval for ``count`` of ``n``; (0, 1) for no questions.

    Raises:
        RecordError: unless 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise RecordError(f"{count} of {n}; expected a count from 0 to the number of questions")
    if not n:
        return 0.0, 1.0
    share, weight = count / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low = 0.0 if count == 0 else max(0.0, middle - half)
    return low, 1.0 if count == n else min(1.0, middle + half)


def share(flags: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A share of questions: Wilson's interval if every question is a cluster of its own, else the clustered one.

    Clusters take Wilson's form as well, with the number of questions that would have the same standard error if they were
    independent, so that a share of 0 or 1 has an interval too: there the number of clusters counts.
    """
    n = len(flags)
    count = sum(map(bool, flags))
    groups = len(set(clusters)) if clusters is not None else n
    if groups == n or not n:
        low, high = wilson(count, n)
        return Estimate(value=count / n if n else 0.0, low=low, high=high, n=n, clusters=groups)
    value = count / n
    error = standard_error([float(flag) for flag in flags], clusters)
    effective = value * (1 - value) / error**2 if error else float(groups)
    effective = min(float(n), max(1.0, effective))
    weight = Z95 * Z95 / effective
    middle = (value + weight / 2) / (1 + weight)
    half = Z95 * math.sqrt(value * (1 - value) / effective + weight / (4 * effective)) / (1 + weight)
    low, high = min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half))
    return Estimate(value=value, low=low, high=high, n=n, clusters=groups)


def standard_error(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Clustered standard error of the mean (`vedere.evals.clusters`); 0 for fewer than two clusters.

    Raises:
        RecordError: another number of clusters than values.
    """
    n = len(values)
    names: Sequence[Hashable] = range(n) if clusters is None else clusters
    if len(names) != n:
        raise RecordError(f"{len(names)} clusters for {n} values; expected one a value")
    sums: dict[Hashable, tuple[float, float]] = {}
    for name, value in zip(names, values, strict=True):
        total, count = sums.get(name, (0.0, 0.0))
        sums[name] = (total + value, count + 1)
    return clustered_error(sums.values()) or 0.0


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean with its clustered normal interval (Miller, eq. 4); the ends may leave the range of the values.

    Fewer than two clusters say nothing about their spread: the interval is unbounded then, not empty.
    """
    n = len(values)
    value = math.fsum(values) / n if n else 0.0
    count = n if clusters is None else len(set(clusters))
    half = Z95 * standard_error(values, clusters) if count > 1 else math.inf
    return Estimate(value=value, low=value - half, high=value + half, n=n, clusters=count)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided probability: a fair coin for each question on which the two differ."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**n))


def bootstrap_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean; whole clusters are drawn with replacement. Unbounded for a single cluster.

    Raises:
        RecordError: no values, another number of clusters than values, or fewer than 1 draw.
    """
    n = len(values)
    names: Sequence[Hashable] = range(n) if clusters is None else clusters
    if len(names) != n or not n or draws < 1:
        raise RecordError(
            f"{n} values, {len(names)} clusters, {draws} draws; expected at least one value, a cluster for each, one draw"
        )
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if len(places) < 2:
        return -math.inf, math.inf
    index = np.fromiter((places[name] for name in names), np.int64, n)
    sums = np.bincount(index, weights=np.asarray(values, np.float64))
    sizes = np.bincount(index).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, 1_000_000 // len(places))
    for start in range(0, draws, block):
        drawn = rng.integers(0, len(places), (min(block, draws - start), len(places)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def compare(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compares credits of two models, 0 to 1, question by question in the same order.

    Intervals are cut at -1 and 1, which is what a single cluster gets.

    Raises:
        RecordError: no questions, or different numbers of them.
    """
    if len(first) != len(second) or not first:
        raise RecordError(f"{len(first)} and {len(second)} credits; expected the same questions for both, at least one")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    fewer, more = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    found = mean_interval(differences, clusters)
    low, high = bootstrap_interval(differences, clusters, draws=draws, seed=seed)
    return Comparison(
        difference=replace(found, low=max(-1.0, found.low), high=min(1.0, found.high)),
        bootstrap=(max(-1.0, low), min(1.0, high)),
        only_first=fewer,
        only_second=more,
        p=mcnemar(fewer, more),
    )
