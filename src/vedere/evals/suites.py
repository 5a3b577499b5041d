"""Names of the benchmarks that can be run, and where each lives. A module is imported when its benchmark is asked for.

A new benchmark is a line here, a class with the methods of `vedere.evals.items.Benchmark`, and its scorer in
`vedere.evals.benchmarks`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import cast

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.evals.items import Benchmark

_IMAGES = (
    *("mme", "mmbench", "mmbench-cn", "ccbench", "seed", "ocrbench", "mmmu", "mmmu-pro", "mathvista", "textvqa"),
    *("docvqa", "infovqa", "chartqa", "ai2d", "scienceqa", "hallusionbench", "mmvet", "llava-wild", "pope"),
    *("realworldqa", "mmstar", "blink", "refcoco", "visualprocessbench", "rm-bench", "vl-rewardbench"),
    *("q-bench", "muirbench", "mmt-bench"),
)
_OPEN = ("open-images", "open-videos")
SUITES: dict[str, str] = {
    **dict.fromkeys(_OPEN, "vedere.evals.open_suite:open_suite"),
    **dict.fromkeys(_IMAGES, "vedere.evals.image_suites:image_benchmark"),
    "video-mme": "vedere.evals.video_mme.dataset:VIDEO_MME",
}
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


def data_of(name: str, given: str | Path | None = None) -> Path:
    """Return where a benchmark's files are: what is given, or its folder in the one that ``VEDERE_BENCHMARKS`` names.

    Raises:
        ConfigError: neither is there.
    """
    if given:
        return Path(given)
    if name in _OPEN:  # shipped
        from vedere.evals.open_suite import data_folder

        return data_folder()
    root = os.environ.get("VEDERE_BENCHMARKS", "")
    if root:
        return Path(root) / name
    raise ConfigError(
        f"where are the files of {name}? Give its file or folder (--data PATH; with inspect: -T data=PATH), or set "
        f"VEDERE_BENCHMARKS to a folder that holds a folder {name}"
    )
