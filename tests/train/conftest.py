"""One tiny language model and corpus for all tests of the training room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import small_runs
from vedere.train import loop


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``lm`` and ``data``; not to be changed."""
    root = tmp_path_factory.mktemp("ground")
    small_runs.language_model(root / "lm")
    small_runs.corpus(root / "data")
    return root


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without measuring the machine, TensorBoard and matplotlib."""
    monkeypatch.setattr(loop, "matmul_limit", lambda *_: 1e9)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
