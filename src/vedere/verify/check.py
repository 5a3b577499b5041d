"""One recorded tensor or table against what vedere computes, as a value that can be printed.

A `Recording` hands out the tensors of ``io.safetensors`` and keeps the books: what was taken is an input, what was compared
is checked, and whatever is left is reported as a failure, so that nothing recorded passes unseen.

Errors are measured in float64. NaN anywhere is larger than every tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.shards import read_file

Measure = Literal["absolute", "relative", "norm", "mismatches", "input"]
IO = "io.safetensors"

# Default tolerances, as the recorded folders suggest. Everything else is compared exactly.
FEATURES = 1e-4
PIXELS = 1e-6
LOSSES = 1e-5
GRADIENTS = 1e-5
WEIGHTS = 1e-6  # loss weights: 1 / sqrt(n) may differ in the last bit between machines


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a verification.

    Attributes:
        name: Recorded tensor or table.
        shape: Its shape; for tables the number of entries.
        measure: ``absolute`` and ``relative`` (largest error), ``norm`` (of the error, by that of what is
            recorded), ``mismatches`` (a count), or ``input`` (not compared).
        error: By that measure.
        tolerance: Largest error that passes.
        note: What went wrong, where that can be said.
    """

    name: str
    shape: tuple[int, ...] = ()
    measure: Measure
    error: float = 0.0
    tolerance: float = 0.0
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.measure == "input" or self.error <= self.tolerance

    def with_tolerance(self, tolerance: float | None) -> Check:
        """The check with another tolerance, where it is numeric; counts of mismatches stay exact."""
        if tolerance is None or self.measure not in ("absolute", "relative", "norm"):
            return self
        return replace(self, tolerance=tolerance)


def failure(name: str, note: str, shape: tuple[int, ...] = ()) -> Check:
    """A check that cannot pass."""
    return Check(name=name, shape=shape, measure="mismatches", error=math.inf, note=note)


def table(name: str, wrong: list[str], entries: int) -> Check:
    """A check of a table of exact entries.

    Args:
        name: Of the table.
        wrong: Description of every mismatch.
        entries: Entries of the table; an empty table fails.
    """
    if not entries:
        return failure(name, "the table is empty", (0,))
    note = "" if not wrong else f"first: {wrong[0]}"
    return Check(name=name, shape=(entries,), measure="mismatches", error=len(wrong), note=note)


def difference(computed: Tensor, recorded: Tensor, measure: Measure) -> float:
    """Largest absolute or relative error, norm of the error by that of ``recorded``, or number of unequal elements."""
    if measure == "mismatches":
        return int((computed.double() != recorded.double()).sum())
    if not recorded.numel():
        return 0.0
    if measure == "norm":
        expected = recorded.double()
        return float((computed.double() - expected).norm() / expected.norm().clamp(min=1e-30))
    error = (computed.double() - recorded.double()).abs()
    if measure == "relative":
        error = error / recorded.double().abs().clamp(min=1e-30)
    return float(error.max())


class Recording:
    """Tensors of a recorded folder, and which of them have been accounted for.

    Args:
        directory: Folder with ``io.safetensors``.

    Raises:
        CheckpointError: the file is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tensors, _ = read_file(directory / IO)
        self._taken: set[str] = set()
        self._checked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str) -> Tensor:
        """A recorded input.

        Raises:
            CheckpointError: it is not recorded.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.directory / IO} has no input '{name}'; record it again")
        self._taken.add(name)
        return self.tensors[name]

    def compare(
        self,
        name: str,
        compute: Callable[[], Tensor],
        measure: Measure,
        tolerance: float = 0.0,
        select: Callable[[Tensor], Tensor] | None = None,
    ) -> Check:
        """Computes one tensor and compares it with the recorded one.

        Args:
            name: Of the recorded tensor.
            compute: Gives vedere's tensor; whatever it raises becomes a failed check.
            measure: See `Check`.
            tolerance: Largest error that passes.
            select: Picks the part of the recorded tensor that has a meaning (padding has none).
        """
        self._checked.add(name)
        recorded = self.tensors[name]
        shape = tuple(recorded.shape)
        try:
            with torch.no_grad():
                computed = compute()
                expected = recorded if select is None else select(recorded)
        except Exception as error:  # a line for every tensor, whatever is wrong with the folder
            return failure(name, f"could not be computed: {type(error).__name__}: {error}", shape)
        if computed.shape != expected.shape:
            note = f"computed {list(computed.shape)} where {list(expected.shape)} is recorded"
            return failure(name, note, shape)
        error_size = difference(computed, expected, measure)
        return Check(name=name, shape=shape, measure=measure, error=error_size, tolerance=tolerance)

    def rest(self) -> Iterator[Check]:
        """Inputs, and a failure for every tensor that nobody asked for."""
        for name, tensor in self.tensors.items():
            if name in self._checked:
                continue
            if name in self._taken:
                yield Check(name=name, shape=tuple(tensor.shape), measure="input")
            else:
                yield failure(name, "recorded, but this kind of folder has no such tensor", tuple(tensor.shape))
