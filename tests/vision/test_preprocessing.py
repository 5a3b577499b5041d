"""Parity with the recorded preprocessing of the originals, and the laws that a plan's pixels obey."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from vedere.errors import ConfigError, MediaError
from vedere.plan import HDPolicy, Policy, SquarePolicy, TilingPolicy, plan_media
from vedere.vision import global_view, hd_canvas, hd_tiles, media_tiles, normalise, open_image, tower_inputs
from vedere.vision.hd import hd_image
from vedere.vision.pixels import mean_colour
from vedere.vision.tiling import jpeg_augment

FOLDER = Path(__file__).parent.parent / "golden" / "preprocessing"
CASES = {case["file"]: case for case in json.loads((FOLDER / "images.json").read_text())}


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "io.safetensors")


def policy_of(case: dict) -> Policy:
    if case["kind"] == "internvl":
        limit = {"max_tiles": case["max_num"], "thumbnail": case["use_thumbnail"]}
        return TilingPolicy(tile=case["image_size"], patch=14, **limit)
    if case["kind"] == "hd":
        return HDPolicy(limit=case["hd_num"])
    return SquarePolicy(tile=case["image_size"], pad=case["kind"] == "pad2square")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("file", [name for name, case in CASES.items() if case["kind"] != "hd"])
def test_tower_inputs_equal_the_recorded_ones(file: str, recorded: dict[str, torch.Tensor]) -> None:
    case = CASES[file]
    statistics = "clip-internvl" if case["normalize"].startswith("clip") else "imagenet"
    image = open_image(FOLDER / file)
    plan = plan_media(*image.size, policy_of(case))
    pixels = media_tiles(image, plan, statistics=statistics)
    expected = recorded[f"{Path(file).stem}.pixel_values"]
    assert pixels.dtype == np.uint8
    assert len(pixels) == len(plan.tiles) == case.get("tiles", 1)
    torch.testing.assert_close(normalise(torch.from_numpy(pixels), statistics), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("file", [name for name, case in CASES.items() if case["kind"] == "hd"])
def test_hd_canvases_equal_the_recorded_ones(file: str, recorded: dict[str, torch.Tensor]) -> None:
    case = CASES[file]
    image = open_image(FOLDER / file)
    plan = plan_media(*image.size, policy_of(case))
    expected = Image.open(FOLDER / case["result"]).convert("RGB")
    assert hd_image(image, plan).size == tuple(case["out_size"])
    canvas = hd_canvas(image, plan)
    assert np.array_equal(canvas, np.asarray(expected).transpose(2, 0, 1))
    every_12th = normalise(torch.from_numpy(canvas), "clip")[:, ::12, ::12]
    expected_12th = recorded[f"{Path(file).stem}.normalised_every_12th"]
    torch.testing.assert_close(every_12th, expected_12th, rtol=0, atol=1e-6)
    (columns, rows), side = plan.grid, plan.tile_size
    inputs = tower_inputs(torch.from_numpy(hd_tiles(image, plan)), [plan.grid], "clip")
    assert torch.equal(inputs[0], global_view(normalise(torch.from_numpy(canvas), "clip"), side))
    again = torch.cat([torch.cat(list(row), 2) for row in inputs[1:].unflatten(0, (rows, columns))], 1)
    torch.testing.assert_close(again[:, ::12, ::12], expected_12th, rtol=0, atol=1e-6)


def test_an_image_of_the_plans_size_is_cut_without_change() -> None:
    policy = TilingPolicy(tile=28)
    image = picture(84, 56)
    plan = plan_media(84, 56, policy)
    pixels, whole = media_tiles(image, plan), np.asarray(image).transpose(2, 0, 1)
    assert plan.grid == (3, 2)
    for tile, found in zip(plan.tiles[:-1], pixels, strict=False):
        left, top, right, bottom = tile.box
        assert np.array_equal(found, whole[:, top:bottom, left:right])
    thumbnail = np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(pixels[-1], thumbnail)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 9), st.booleans())
def test_every_plan_gets_a_tile_for_each_of_its_tiles(width: int, height: int, limit: int, thumbnail: bool) -> None:
    image = picture(width, height)
    for policy in (
        TilingPolicy(tile=28, max_tiles=limit, thumbnail=thumbnail),
        SquarePolicy(tile=28, pad=thumbnail),
    ):
        plan = plan_media(width, height, policy)
        assert media_tiles(image, plan).shape == (len(plan.tiles), 3, 28, 28)
    for hd in (HDPolicy(tile=28, limit=limit), HDPolicy(tile=28, limit=limit, mode="identity", padding="end")):
        plan = plan_media(width, height, hd)
        assert hd_canvas(image, plan).shape == (3, plan.grid[1] * 28, plan.grid[0] * 28)
        tiles = hd_tiles(image, plan)
        assert tiles.dtype == np.uint8
        assert tower_inputs(torch.from_numpy(tiles), [plan.grid], "clip").shape == (len(plan.tiles), 3, 28, 28)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12), st.sampled_from(["centre", "end"]))
def test_hd_canvases_of_transposed_pictures_are_transposed(width: int, height: int, limit: int, padding: str) -> None:
    if width == height:  # both are landscape: padding stays where it is
        width += 1
    policy = HDPolicy(tile=28, limit=limit, padding=padding)
    image = picture(width, height)
    other = image.transpose(Image.Transpose.TRANSPOSE)
    canvas = hd_canvas(image, plan_media(width, height, policy))
    assert np.array_equal(hd_canvas(other, plan_media(height, width, policy)), canvas.transpose(0, 2, 1))


def test_hd_padding_is_white_and_nothing_else_is() -> None:
    plan = plan_media(60, 20, HDPolicy(tile=28, limit=4))  # 4 x 2 do not fit: 3 x 1, 84 x 28 and no padding
    assert plan.padding == (0, 0, 0, 0)
    plan = plan_media(60, 25, HDPolicy(tile=28, limit=8))
    left, top, right, bottom = plan.padding
    assert (left, right) == (0, 0)
    assert 0 < top <= bottom <= top + 1
    canvas = hd_canvas(Image.new("RGB", (60, 25)), plan)
    assert (canvas[:, :top] == 255).all()
    assert (canvas[:, -bottom:] == 255).all()
    assert not canvas[:, top:-bottom].any()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=3), st.integers(1, 8))
def test_tower_inputs_are_global_views_and_canvases_row_by_row(sizes: list[tuple[int, int]], limit: int) -> None:
    plans = [plan_media(*size, HDPolicy(tile=28, limit=limit)) for size in sizes]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    tiles = [hd_tiles(image, plan) for image, plan in zip(images, plans, strict=True)]
    inputs = iter(tower_inputs(torch.from_numpy(np.concatenate(tiles)), [plan.grid for plan in plans], "clip"))
    for image, plan in zip(images, plans, strict=True):
        canvas = normalise(torch.from_numpy(hd_canvas(image, plan)), "clip")
        assert torch.equal(next(inputs), global_view(canvas, 28))
        for tile in plan.tiles[1:]:
            left, top, right, bottom = tile.box
            assert torch.equal(next(inputs), canvas[:, top:bottom, left:right])
    assert next(inputs, None) is None


def test_without_grids_tower_inputs_are_the_normalised_tiles() -> None:
    tiles = torch.from_numpy(media_tiles(picture(60, 25), plan_media(60, 25, TilingPolicy(tile=28))))
    assert torch.equal(tower_inputs(tiles, (), "imagenet"), normalise(tiles, "imagenet"))


def bicubic_weights(size: int, side: int) -> np.ndarray:
    """Cubic convolution with a = -0.75 at pixel centres, borders repeated, no antialias: [side, size]."""
    weights = np.zeros((side, size))
    for out in range(side):
        centre = (out + 0.5) * size / side - 0.5
        base = int(np.floor(centre))
        for tap in range(base - 1, base + 3):
            x = abs(centre - tap)
            w = 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[out, min(max(tap, 0), size - 1)] += w
    return weights


def test_the_global_view_is_bicubic_without_antialias() -> None:
    canvas = torch.randn(3, 56, 84)
    rows, columns = bicubic_weights(56, 28), bicubic_weights(84, 28)
    expected = rows @ canvas.double().numpy() @ columns.T
    np.testing.assert_allclose(global_view(canvas, 28).numpy(), expected, atol=1e-5)
    assert global_view(canvas.bfloat16(), 28).dtype == torch.bfloat16


def test_normalise_is_float32_division_then_subtraction_then_division() -> None:
    tiles = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    for statistics, mean, std in (
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("clip-internvl", (0.4814546, 0.4578275, 0.40821073), (0.2686295, 0.2613025, 0.2757711)),
    ):
        scaled = tiles.numpy().astype(np.float32) / np.float32(255)
        column = [np.asarray(values, np.float32)[:, None, None] for values in (mean, std)]
        expected = (scaled - column[0]) / column[1]
        assert np.array_equal(normalise(tiles, statistics).numpy(), expected)


def test_the_padding_colour_is_the_integer_part_of_the_mean() -> None:
    assert mean_colour("imagenet") == (123, 116, 103)
    assert mean_colour("clip") == (122, 116, 104)


def test_augmented_tiles_are_jpegs_of_the_drawn_quality() -> None:
    image = picture(56, 28)
    plan = plan_media(56, 28, TilingPolicy(tile=28))
    plain, augmented = media_tiles(image, plan), media_tiles(image, plan, augment=random.Random(3))
    assert np.array_equal(augmented, media_tiles(image, plan, augment=random.Random(3)))
    assert not np.array_equal(augmented, media_tiles(image, plan, augment=random.Random(4)))
    rng = random.Random(3)
    for before, after in zip(plain, augmented, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(before.transpose(1, 2, 0)).save(buffer, "JPEG", quality=rng.randint(75, 100))
        assert np.array_equal(np.asarray(Image.open(buffer)).transpose(2, 0, 1), after)


def test_augmented_hd_tiles_are_jpegs_too_and_the_global_view_shows_them() -> None:
    image = picture(56, 28)
    plan = plan_media(56, 28, HDPolicy(tile=28, limit=2))
    assert plan.grid == (2, 1)
    augmented = hd_tiles(image, plan, augment=random.Random(3))
    same = media_tiles(image, plan_media(56, 28, TilingPolicy(tile=28, thumbnail=False)), augment=random.Random(3))
    assert np.array_equal(augmented, same)
    inputs = tower_inputs(torch.from_numpy(augmented), [plan.grid], "clip")
    canvas = normalise(torch.from_numpy(np.concatenate(augmented, axis=2)), "clip")
    assert torch.equal(inputs[0], global_view(canvas, 28))


def test_jpeg_qualities_cover_75_to_100() -> None:
    class Recorder(random.Random):
        def randint(self, a: int, b: int) -> int:
            drawn.add(value := super().randint(a, b))
            return value

    drawn: set[int] = set()
    rng, tile = Recorder(0), picture(2, 2)
    for _ in range(400):
        jpeg_augment(tile, rng)
    assert drawn == set(range(75, 101))


def test_frames_become_one_tile_each_and_are_never_augmented() -> None:
    frames = [picture(40, 30, seed) for seed in range(3)]
    plan = plan_media(40, 30, TilingPolicy(tile=28), frames=3)
    pixels = media_tiles(frames, plan)
    assert pixels.shape == (3, 3, 28, 28)
    assert np.array_equal(pixels, media_tiles(frames, plan, augment=random.Random(0)))
    for frame, found in zip(frames, pixels, strict=True):
        assert np.array_equal(found, media_tiles(frame, plan_media(40, 30, TilingPolicy(tile=28), frames=1))[0])


def test_pictures_that_do_not_fit_the_plan_are_refused() -> None:
    plan = plan_media(40, 30, TilingPolicy(tile=28), frames=2)
    with pytest.raises(MediaError, match=r"1 pictures given for a plan of 2 frame\(s\)"):
        media_tiles(picture(40, 30), plan)
    with pytest.raises(MediaError, match=r"is 30 x 40 px but its plan was made for 40 x 30.*EXIF"):
        media_tiles(picture(30, 40), plan_media(40, 30, TilingPolicy(tile=28)))
    with pytest.raises(MediaError, match="mode L; expected RGB: open it with open_image"):
        media_tiles(picture(40, 30).convert("L"), plan_media(40, 30, SquarePolicy(tile=28)))


def test_hd_and_other_plans_are_not_mixed_up() -> None:
    hd, tiled = plan_media(40, 30, HDPolicy(tile=28)), plan_media(40, 30, TilingPolicy(tile=28))
    with pytest.raises(ConfigError, match=r"use hd_tiles\(image, plan\) and tower_inputs"):
        media_tiles(picture(40, 30), hd)
    for cut in (hd_canvas, hd_tiles):
        with pytest.raises(ConfigError, match="a plan of a TilingPolicy has no HD tiles"):
            cut(picture(40, 30), tiled)
    with pytest.raises(ConfigError, match="5 tiles for grids of 6; give the tiles of exactly these pictures"):
        tower_inputs(torch.zeros(5, 3, 28, 28, dtype=torch.uint8), [(1, 2), (2, 2)], "clip")


def test_normalise_refuses_what_is_not_pixels() -> None:
    with pytest.raises(ConfigError, match=r"torch.float32 \[1, 3, 2, 2\]; expected uint8 \[..., 3, H, W\]"):
        normalise(torch.zeros(1, 3, 2, 2), "clip")
    with pytest.raises(ConfigError, match="unknown statistics 'vit'; expected one of imagenet, clip, clip-internvl"):
        normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "vit")  # type: ignore[arg-type]
