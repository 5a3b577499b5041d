"""Lettering: ink stands where the boxes say, inside the picture, in reading order."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.build.lettering import Look, contrasting, draw_look, draw_text, legible_fill
from vedere.data.build.typefaces import local_typefaces

LAWS = settings(derandomize=True, max_examples=30, deadline=None)
TEXTS = st.lists(st.text("abgjkxyzMQTW0179.,!-", min_size=1, max_size=9), min_size=1, max_size=4)
SIZES = st.sampled_from([(160, 160), (320, 96), (448, 128), (240, 160), (120, 200)])
FACES = st.sampled_from(local_typefaces())
CROOKED = Look(angle=4.0, shear=0.1, perspective=0.1, tracking=0.1)


@LAWS
@given(TEXTS, SIZES, FACES, st.sampled_from([Look(), CROOKED]), st.integers(0, 99))
def test_all_ink_is_in_boxes_and_all_boxes_are_in_the_picture(lines, size, face, look, seed):
    drawn = draw_text(lines, face, size, random.Random(seed), look=look)
    assert drawn.image.size == size
    assert drawn.image.mode == "RGB"
    assert drawn.characters == "".join(lines)
    assert drawn.quads.shape == (len(drawn.characters), 4, 2)
    assert drawn.quads.min() > -2
    assert (drawn.quads.reshape(-1, 2).max(0) < np.array(size) + 2).all()
    ink = np.asarray(drawn.image.convert("L")) < 100
    covered = np.zeros_like(ink)
    for (x0, y0), (x1, y1) in zip(drawn.quads.min(1), drawn.quads.max(1), strict=True):
        covered[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2] = True
    assert ink.any()
    assert not (ink & ~covered).any()


@LAWS
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=2, max_size=9), SIZES, FACES)
def test_boxes_follow_each_other_and_each_holds_ink(text, size, face):
    drawn = draw_text([text], face, size, random.Random(1), fill=0.9)
    left, right = drawn.quads[:, 0, 0], drawn.quads[:, 1, 0]
    assert (left < right).all()
    np.testing.assert_allclose(left[1:], right[:-1], atol=1.0 + 0.3 * float((right - left).max()))
    assert (np.diff(drawn.quads.mean(1)[:, 0]) > 0).all()
    dark = np.asarray(drawn.image.convert("L")) < 200
    for (x0, y0), (x1, y1) in zip(drawn.quads.min(1), drawn.quads.max(1), strict=True):
        assert dark[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1].any()


def test_what_fills_a_picture_follows_fill():
    face = local_typefaces()[0]
    for fill in (0.4, 0.7, 0.95):
        drawn = draw_text(["reading"], face, (160, 160), random.Random(0), fill=fill)
        columns = np.flatnonzero((np.asarray(drawn.image.convert("L")) < 128).any(0))
        assert (columns[-1] - columns[0]) / 160 == pytest.approx(fill, abs=0.07)


def test_what_follows_a_tab_stands_at_the_right_edge():
    drawn = draw_text(["milk\t2.50", "bread\t12.00"], local_typefaces()[0], (160, 160), random.Random(0))
    assert drawn.characters == "milk2.50bread12.00"
    ends = drawn.quads[[7, 17], 1, 0]
    assert abs(ends[0] - ends[1]) < 4
    assert abs(drawn.quads[0, 0, 0] - drawn.quads[8, 0, 0]) < 4
    assert drawn.quads[4, 0, 0] - drawn.quads[3, 1, 0] > 10


def test_spaces_have_no_box_and_part_words():
    drawn = draw_text(["at noon"], local_typefaces()[0], (160, 160), random.Random(0))
    assert drawn.characters == "atnoon"
    assert drawn.quads[2, 0, 0] - drawn.quads[1, 1, 0] > 4


def test_a_typeface_without_small_letters_gets_capitals():
    face = replace(local_typefaces()[0], capitals=True)
    assert draw_text(["Open"], face, (160, 160), random.Random(0)).characters == "OPEN"


def test_lettering_follows_from_the_seed():
    face, look = local_typefaces()[0], Look(noise=9.0, clutter=3, perspective=0.1)
    first, second, other = (draw_text(["same"], face, (160, 160), random.Random(seed), look=look) for seed in (1, 1, 2))
    assert first.image.tobytes() == second.image.tobytes() != other.image.tobytes()
    assert (first.quads == second.quads).all()


def test_a_third_of_the_looks_is_plain_and_ink_stands_out():
    looks = [draw_look(random.Random(seed)) for seed in range(900)]
    plain = [look for look in looks if (look.ink, look.ground) == ((0, 0, 0), (255, 255, 255))]
    assert 0.27 < len(plain) / len(looks) < 0.4
    weights = np.array([0.3, 0.59, 0.11])
    for look in looks:
        for ground in (look.ground, look.fade):
            if ground is not None and look.panel is None:
                assert abs(weights @ np.array(look.ink) - weights @ np.array(ground)) >= 89
        if look.panel is not None:
            assert abs(weights @ np.array(look.ink) - weights @ np.array(look.panel)) >= 89
    assert any(look.fade for look in looks)
    assert any(look.clutter for look in looks)
    assert contrasting((127, 127, 127), random.Random(0)) != (127, 127, 127)


def test_more_text_fills_more():
    assert legible_fill(["a"], 0.5) == 0.5
    assert legible_fill(["fourteen chars"], 0.5) == 0.7
    assert legible_fill(["x"] * 9, 0.5) == pytest.approx(0.84375)
    assert legible_fill(["much too long for one line"], 0.5) == 0.97
