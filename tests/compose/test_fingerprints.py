"""The same photograph again, and another one."""

import numpy as np
import pytest
from composing import noise
from PIL import Image

from vedere.compose.fingerprints import SAME, different_bits, perceptual_hash


@pytest.fixture
def photo(tmp_path):
    with Image.open(noise(tmp_path / "a.png", 7, size=(300, 200))) as image:
        return image.convert("RGB")


def test_resized_recompressed_and_recoloured_pictures_are_the_same(photo, tmp_path):
    original = perceptual_hash(photo)
    photo.save(tmp_path / "low.jpg", quality=30)
    forms = [
        photo.resize((90, 60)),
        photo.resize((310, 190)),
        photo.point(lambda value: min(255, int(value * 0.9) + 12)),
    ]
    with Image.open(tmp_path / "low.jpg") as low:
        forms.append(low.convert("RGB"))
    assert max(different_bits(original, perceptual_hash(form)) for form in forms) <= SAME


def test_other_pictures_are_others(tmp_path):
    hashes = [perceptual_hash(Image.open(noise(tmp_path / f"{seed}.png", seed))) for seed in range(12)]
    apart = [different_bits(one, other) for k, one in enumerate(hashes) for other in hashes[:k]]
    assert min(apart) > 2 * SAME


def test_the_hash_is_that_of_the_cosine_transform(photo):
    """By its definition, term by term."""
    grey = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.BOX, reducing_gap=2.0), np.float64)
    places = np.arange(32)
    low = [
        sum(
            grey[y, x] * np.cos(np.pi * (y + 0.5) * v / 32) * np.cos(np.pi * (x + 0.5) * u / 32)
            for y in places
            for x in places
        )
        / (np.sqrt(2) ** ((u == 0) + (v == 0)))
        for v in range(8)
        for u in range(8)
    ][1:]
    expected = sum(1 << place for place, value in enumerate(low) if value > np.median(low))
    assert perceptual_hash(photo) == expected


@pytest.mark.parametrize("colour", ["black", "white", "red"])
def test_a_picture_with_nothing_in_it_is_nobodys_duplicate(colour):
    flat = perceptual_hash(Image.new("RGB", (50, 40), colour))
    assert flat is None
    assert different_bits(flat, flat) == 64
