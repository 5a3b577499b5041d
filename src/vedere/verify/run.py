"""Runs a verification and writes it down, as lines or as one object."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vedere.errors import CheckpointError, ConfigError
from vedere.verify.check import Check
from vedere.verify.kinds import Kind, recognise

_MEASURES = {
    "absolute": "max abs error",
    "relative": "max rel error",
    "norm": "rel norm error",
    "mismatches": "mismatches",
}


@dataclass(frozen=True)
class Report:
    """Outcome of one folder.

    Attributes:
        directory: The folder.
        kind: What it was recognised as.
        checks: One for every recorded tensor or table that is compared.
        inputs: Names of what was recorded as input only.
    """

    directory: Path
    kind: str
    checks: tuple[Check, ...]
    inputs: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether there is something to compare and all of it passes."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def verify(
    directory: Path | str,
    tolerance: float | None = None,
    *,
    model: Path | str | None = None,
    dtype: torch.dtype | None = None,
    device: str | None = None,
) -> Report:
    """Compares a folder of recorded outputs with what vedere computes.

    Args:
        directory: The folder.
        tolerance: Replaces the default tolerance of all numeric comparisons.
        model: Another model than the recorded one: a folder, or, for vedere's own recordings, any name of a model.
        dtype: Of its weights; None: as recorded. For vedere's own recordings.
        device: Where it runs; None: the CPU. For vedere's own recordings.

    Raises:
        CheckpointError: a folder that cannot be verified.
        ConfigError: a model, dtype or device for a kind of folder that takes none.
    """
    directory = Path(directory)
    kind = recognise(directory)
    arguments = _arguments(directory, kind, model, dtype, device)
    try:
        found = [check.with_tolerance(tolerance) for check in kind.checks(directory, *arguments)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{directory} looks like a recording of kind '{kind.name}', but is not laid out like one "
            f"({type(error).__name__}: {error}); record it again"
        ) from error
    compared = tuple(check for check in found if check.measure != "input")
    return Report(directory, kind.name, compared, tuple(check.name for check in found if check.measure == "input"))


def _arguments(
    directory: Path, kind: Kind, model: Path | str | None, dtype: torch.dtype | None, device: str | None
) -> tuple[Any, ...]:
    if kind.subject == "model":
        return model, dtype, device
    if dtype is not None or device is not None:
        raise ConfigError(
            f"{directory} is of kind '{kind.name}', recorded in float32 and verified so on the CPU; leave dtype and device "
            "out, or make a recording of your own: vedere verify --record DIR --model MODEL"
        )
    if model is None:
        return ()
    if kind.subject == "nothing":
        raise ConfigError(f"{directory} is of kind '{kind.name}', which has no model to replace by '{model}'")
    return (Path(model),)


def lines(report: Report) -> list[str]:
    """The report for people: one line a check, the inputs, the sum."""
    width = max([len(check.name) for check in report.checks], default=0)
    shapes = [_shape(check.shape) for check in report.checks]
    shape_width = max([len(shape) for shape in shapes], default=0)
    written = [f"{report.directory}: {report.kind}"]
    for check, shape in zip(report.checks, shapes, strict=True):
        verdict = "pass" if check.passed else "FAIL"
        measure = _MEASURES[check.measure]
        error, tolerance = _number(check, check.error), _number(check, check.tolerance)
        note = f"  {check.note}" if check.note else ""
        written.append(
            f"{verdict}  {check.name:<{width}}  {shape:<{shape_width}}  {measure} {error:>7}  tolerance {tolerance}{note}"
        )
    if report.inputs:
        written.append(f"inputs, not compared: {', '.join(_folded(report.inputs))}")
    failed = sum(not check.passed for check in report.checks)
    written.append(f"{len(report.checks) - failed} of {len(report.checks)} pass, {failed} fail")
    return written


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain data for JSON; errors that are no numbers are null."""
    return {
        "directory": str(report.directory),
        "kind": report.kind,
        "passed": report.passed,
        "checks": [
            {
                "name": check.name,
                "shape": list(check.shape),
                "measure": check.measure,
                "error": check.error if math.isfinite(check.error) else None,
                "tolerance": check.tolerance,
                "passed": check.passed,
                "note": check.note,
            }
            for check in report.checks
        ],
        "inputs": list(report.inputs),
    }


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _number(check: Check, value: float) -> str:
    if check.measure == "mismatches" and math.isfinite(value):
        return str(int(value))
    return f"{value:.1e}" if value else "0"


def _folded(names: Sequence[str]) -> list[str]:
    """Names of one pattern are given once: ``l0.labels, l1.labels, ...`` is ``l*.labels (4)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return [f"{pattern} ({len(group)})" if len(group) > 2 else ", ".join(group) for pattern, group in groups.items()]
