"""Large pictures are resized by two threads, each size or each half of the rows; the pixels must be those of one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.plan import TilingPolicy, plan_media
from vedere.vision import tiling
from vedere.vision.pixels import media_tiles


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(1300, 700), (801, 640), (90, 7000)])
@pytest.mark.parametrize("most", [1, 6])
def test_threads_change_no_pixel(size: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_media(*size, TilingPolicy(max_tiles=most, thumbnail=most > 1))
    threads: list[str] = []
    plain = Image.Image.resize

    def counted(self: Image.Image, *arguments: object, **options: object) -> Image.Image:
        threads.append(threading.current_thread().name)
        return plain(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = media_tiles(noise(*size), plan)
    assert set(threads) == {"MainThread"}
    threads.clear()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert np.array_equal(media_tiles(noise(*size), plan), alone)
    assert any(name != "MainThread" for name in threads)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_bands_are_the_whole(width: int, height: int, columns: int, rows: int, seed: int) -> None:
    picture = noise(width, height, seed)
    with ThreadPoolExecutor(2) as pool:
        got = tiling._in_bands(picture, (columns, rows), pool)
    assert np.array_equal(np.array(got), np.array(picture.resize((columns, rows), Image.Resampling.BICUBIC)))
