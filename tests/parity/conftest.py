"""Copies of recorded folders that a test may damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor


class Damaged:
    """A copy of a recorded folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def tensors(self, change: Callable[[dict[str, Tensor]], None], file: str = "io.safetensors") -> None:
        """Rewrites a file of tensors."""
        stored = {name: tensor.clone() for name, tensor in load_file(self.directory / file).items()}
        change(stored)
        save_file(stored, self.directory / file)

    def table(self, file: str, change: Callable[[object], None]) -> None:
        """Rewrites a JSON file."""
        path = self.directory / file
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def damaged(golden: Path, tmp_path: Path) -> Callable[[str], Damaged]:
    """`damaged("v2pe")`: a copy of that folder."""

    def copy(name: str) -> Damaged:
        shutil.copytree(golden / name, tmp_path / name)
        return Damaged(tmp_path / name)

    return copy
