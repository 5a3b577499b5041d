"""A folder of pictures, one of them damaged, and captioners that count."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from small_runs import COLOURS
from tiny_models import TILE


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (TILE, TILE), colour).save(folder / f"{name}.png")
        Image.new("RGB", (2 * TILE, TILE), colour).save(folder / "more" / f"{name}.jpg")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "notes.txt").write_text("no picture")
    return folder
