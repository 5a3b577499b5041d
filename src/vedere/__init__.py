"""vedere: the InternVL / XComposer line of multimodal large language models as one PyTorch library.

``vedere.load("mini").chat("What is this?", images=["photo.jpg"]).text`` is the five-second tour. Everything is loaded on
first use, so that ``import vedere`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {"load": "vedere.infer.session", "Session": "vedere.infer.session", "plan_media": "vedere.plan"}

__all__ = ["Session", "__version__", "load", "plan_media"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vedere' has no attribute '{name}'")
