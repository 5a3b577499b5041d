"""Large pictures are resized by two threads; the pixels must be those of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vedere.plan import TilingPolicy, plan_media
from vedere.vision import tiling
from vedere.vision.pixels import media_tiles


@pytest.mark.parametrize("size", [(1001, 667), (640, 360)])
def test_threads_change_no_pixel(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture, plan = Image.fromarray(noise), plan_media(*size, TilingPolicy(max_tiles=6))
    pools = []

    class Counted(tiling.ThreadPoolExecutor):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            pools.append(self)

    monkeypatch.setattr(tiling, "ThreadPoolExecutor", Counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = media_tiles(picture, plan)
    assert not pools
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    together = media_tiles(picture, plan)
    assert len(pools) == (size[0] * size[1] >= 500_000)
    assert plan.tiles[-1].role == "thumbnail"
    np.testing.assert_array_equal(alone, together)
