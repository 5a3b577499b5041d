"""Names of the benchmarks that can be run, and where each lives. A module is imported when its benchmark is asked for.

A new benchmark is a line here, a class with the methods of `vedere.evals.items.Benchmark`, and its scorer in
`vedere.evals.benchmarks`.
"""

from __future__ import annotations

import importlib
from typing import cast

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.evals.items import Benchmark

SUITES: dict[str, str] = {}
"""Name -> ``module:attribute`` of an object with the methods of `Benchmark`, or of a function name -> such an object."""


def suite(name: str) -> Benchmark:
    """Return the benchmark of a name, ready to load.

    Raises:
        ConfigError: for an unknown name, with the nearest one.
    """
    if name not in SUITES:
        raise ConfigError(f"unknown benchmark '{name}'{nearest(name, SUITES)} (benchmarks: {', '.join(SUITES)})")
    module, _, attribute = SUITES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    return cast(Benchmark, found(name) if callable(found) else found)
