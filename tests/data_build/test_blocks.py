from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vedere.data.build import blocks as blocks_module
from vedere.data.build import drawings, garments
from vedere.data.build.blocks import blocks_of, draw, draw_all
from vedere.data.build.media import encode_clip, encode_item
from vedere.data.build.record import Clip, Item
from vedere.errors import RecordError
from vedere.vision.video import probe, read_frames


def item(**shown):
    return Item(labels=("x",), captions=("x",), alignment=(), asks=(), **shown)


def picture(value=0, size=(64, 64)):
    return Image.new("RGB", size, (value, value, value))


def test_independent_kinds_are_cut_and_others_are_not():
    cut = blocks_of(drawings.KIND, "train", 1200, 7, Path())
    assert [block.count for block in cut] == [500, 500, 200]
    assert cut[0].seed == 7
    assert len({block.seed for block in cut}) == 3
    assert [block.count for block in blocks_of(garments.KIND, "train", 1200, 7, Path())] == [1200]
    assert cut[1].seed != blocks_of(drawings.KIND, "train", 1200, 8, Path())[1].seed


def test_processes_draw_what_one_process_draws(monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK", 4)
    cut = blocks_of(drawings.KIND, "train", 10, 1, Path())
    one = list(chain.from_iterable(draw_all(cut, 1)))
    assert list(chain.from_iterable(draw_all(cut, 2))) == one
    assert len({drawn.digest for drawn in one}) == len(one) == 10
    assert one[:4] == list(draw(cut[0]))


def test_an_item_shows_exactly_one_thing():
    clip = Clip(frames=(picture(),), fps=4)
    with pytest.raises(RecordError, match="an item has nothing to look at; give exactly one of image, images"):
        item()
    with pytest.raises(RecordError, match="an item has image and clip; give exactly one"):
        item(image=picture(), clip=clip)
    with pytest.raises(RecordError, match="an item has images with one picture; give"):
        item(images=(picture(),))
    assert item(image=picture()).medium == "picture"
    assert item(images=(picture(), picture())).medium == "pictures"
    assert item(clip=clip).medium == "video"


@pytest.mark.parametrize("size", [(48, 640), (640, 48), (123, 77)])
def test_pictures_of_other_sizes_are_kept_as_they_are(size):
    (data,) = encode_item(item(image=picture(9, size)), "x")
    import io

    assert Image.open(io.BytesIO(data)).size == size


def test_sizes_out_of_range_and_odd_films_are_refused():
    for size in ((47, 100), (100, 641)):
        with pytest.raises(RecordError, match=r"x is RGB .*; a kind must yield RGB, 48 to 640 px a side"):
            encode_item(item(image=picture(0, size)), "x")
    for frames in ((picture(), picture(0, (66, 64))), (picture(0, (65, 64)),)):
        with pytest.raises(RecordError, match="a film needs frames of one size with even sides"):
            encode_item(item(clip=Clip(frames=frames, fps=4)), "x")


def test_a_film_reads_back_frame_by_frame():
    clip = Clip(frames=tuple(picture(20 * number) for number in range(9)), fps=5)
    data = encode_clip(clip)
    assert data == encode_clip(clip)
    info = probe(data)
    assert (info.frames, info.fps, info.width, info.height) == (9, 5.0, 64, 64)
    read = read_frames(data, 9, "linspace").frames
    for frame, drawn in zip(read, clip.frames, strict=True):
        assert abs(np.asarray(frame, dtype=float) - np.asarray(drawn)).mean() < 4
