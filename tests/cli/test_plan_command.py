"""``vedere plan``: what it prints, and that it is what the rooms below compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tiny_models import tiny_config
from vedere.cli import main, plan
from vedere.models.footprint import MINI, footprint
from vedere.models.published import native_config
from vedere.models.releases import MONO_INTERNVL_2B
from vedere.plan import HDPolicy, TilingPolicy, plan_media
from vedere.recipes import get_recipe


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["plan", *argv])
    out, err = capsys.readouterr()
    return status, out, err


def as_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = run(capsys, *argv, "--json")
    assert out.count("\n") == 1
    return status, json.loads(out)


def test_4khd_shows_views_tokens_memory_and_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "3840x1600", "--policy", "hd", "--hd-num", "55")
    expected = plan_media(3840, 1600, HDPolicy(limit=55))
    assert status == 0
    assert not err
    header, row, title, *rest = out.strip().splitlines()
    assert header.split() == ["input", "size", "policy", "grid", "tiles", "tokens", "spans"]
    assert "HD-55 of 336 px  11 x 5  55 + 1  8137" in row
    assert expected.tokens == 8137
    assert row.endswith("8064 visual + 72 row end + 1 separator")
    assert title == "3840x1600: 3696 x 1540 px on 3696 x 1680, 92% of it picture, white where dotted"
    rule = "+" + 11 * "------+"
    assert rest[:16:4] == [rule] * 4
    assert rest[1] == "|" + 11 * "......|"  # 70 px of white above the picture
    assert rest[2] == rest[10] == "|" + 11 * "######|"
    assert rest[20] == rule
    assert rest[19] == rest[1]
    summary = "\n".join(rest[21:])
    assert "internlm-xcomposer2-4khd-7b, bf16" in summary
    assert "8137 media + 64 text = 8201 tokens" in summary
    assert "together     18.9 GB" in summary
    _, data = as_json(capsys, "3840x1600", "--hd-num", "55")
    assert data["model"]["parameters"]["parts"]["partial LoRA"] == 32 * 256 * (4096 + 6144 + 8192 + 3 * 18432)
    assert data["inputs"][0]["policy"]["limit"] == 55
    assert sum(data["inputs"][0]["spans"].values()) == data["media_tokens"] == 8137


@pytest.mark.parametrize(
    ("limit", "grid", "tokens"),
    [
        (1, [1, 1], 313),
        (9, [3, 3], 1489),
        (16, [4, 4], 2509),
        (25, [5, 5], 3817),
        (55, [7, 7], 7297),
        (65, [8, 8], 9469),
    ],
)
def test_square_pages_at_the_papers_limits(
    capsys: pytest.CaptureFixture[str], limit: int, grid: list[int], tokens: int
) -> None:
    """(hw + 1) 144 + 1 + (h + 1) 12 tokens, and one picture however small fills them all."""
    for size in ("100x100", "4000x4000"):
        _, data = as_json(capsys, size, "--policy", "hd", "--hd-num", str(limit))
        (page,) = data["inputs"]
        assert (page["grid"], page["tokens"], page["filled"]) == (grid, tokens, 1.0)
        assert page["tokens"] == (grid[0] * grid[1] + 1) * 144 + 1 + (grid[1] + 1) * 12
        assert page["tiles"] == grid[0] * grid[1] + 1


@pytest.mark.parametrize(("size", "grid"), [((1, 20000), [1, 25]), ((20000, 1), [25, 1])])
def test_a_strip_is_planned_drawn_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, size: tuple[int, int], grid: list[int]
) -> None:
    """The original fails to resize it to a width of 0; here one pixel is left, and somebody is told."""
    Image.new("RGB", size, "black").save(tmp_path / "strip.png")
    name = str(tmp_path / "strip.png")
    status, out, err = run(capsys, name, "--policy", "hd")
    assert status == 0
    assert f"strip.png is a strip of {size[0]} x {size[1]} px and fills 0.3% of its views; cut it into pages" in err
    drawn = [line for line in out.splitlines() if line.startswith("|")]
    assert len(drawn) == 3 * grid[1]
    assert sum(line.count("#") for line in drawn) == (3 if grid[0] == 1 else 6) * 25  # a line through every view
    status, data = as_json(capsys, name, "--policy", "hd")
    assert data["inputs"][0]["grid"] == grid
    assert 8400 in data["inputs"][0]["resized"]
    assert data["inputs"][0]["filled"] == pytest.approx(1 / 336, abs=1e-5)


def test_totals_are_those_of_the_footprint(capsys: pytest.CaptureFixture[str]) -> None:
    status, data = as_json(capsys, "800x600", "448x448x16", "--model", "mono-internvl-2b", "--new-tokens", "100")
    assert status == 0
    picture = plan_media(800, 600, TilingPolicy())
    assert [entry["tokens"] for entry in data["inputs"]] == [picture.tokens, 16 * 256]
    assert [entry["kind"] for entry in data["inputs"]] == ["image", "video"]
    import torch

    prompt = picture.tokens + 16 * 256 + 64
    expected = footprint(
        MONO_INTERNVL_2B, dtype=torch.bfloat16, prompt=prompt, new_tokens=100, tiles=len(picture.tiles) + 16
    )
    assert data["context"] == {"prompt": prompt, "answer": 100, "limit": 65536, "fits": True}
    assert data["bytes"]["total"] == expected.total
    assert data["model"]["parameters"]["total"] == expected.parameters.total
    status, out, _ = run(capsys, "800x600", "--model", "mono-internvl-2b")
    assert "parameters   3.11 B; read for a text token 1.89 B" in out
    assert "weights      6.22 GB" in out


def test_pictures_of_a_prompt_share_the_tile_limit(capsys: pytest.CaptureFixture[str]) -> None:
    _, alone = as_json(capsys, "900x600", "--model", "mono-internvl-2b", "--max-tiles", "6")
    _, two = as_json(capsys, "900x600", "900x600", "640x480x4", "--model", "mono-internvl-2b", "--max-tiles", "6")
    assert alone["inputs"][0]["policy"]["max_tiles"] == 6
    assert [entry["policy"]["max_tiles"] for entry in two["inputs"]] == [3, 3, 1]
    assert two["inputs"][0]["tiles"] < alone["inputs"][0]["tiles"]


def test_files_are_measured_upright(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (60, 20)).save(tmp_path / "photo.jpg", exif=exif)
    Image.new("RGB", (50, 40)).save(tmp_path / "12x34", "PNG")  # a file that is called like a size
    _write_video(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    _, data = as_json(capsys, "photo.jpg", "12x34", "clip.mp4", "--frames", "5")
    assert [(e["width"], e["height"], e["frames"], e["kind"]) for e in data["inputs"]] == [
        (20, 60, 1, "image"),
        (50, 40, 1, "image"),
        (64, 48, 5, "video"),
    ]


def _write_video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (shade * 40, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_prompt_that_does_not_fit_is_said_with_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "640x480x600", "--text-tokens", "40", "--new-tokens", "60")
    assert status == 1
    assert "15000 media + 40 text = 15040 tokens, 60 for the answer: 15100 of 8192 positions  DOES NOT FIT" in out
    assert "15100 tokens do not fit the 8192 positions of the model by 6908; lower --max-tiles, --frames" in err
    status, data = as_json(capsys, "640x480x600")
    assert status == 1
    assert not data["context"]["fits"]


def test_a_folder_with_a_config_is_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    extras = {"max_dynamic_patch": 4, "use_thumbnail": False}
    (tmp_path / "config.json").write_text(json.dumps(native_config(tiny_config(), extras)))
    _, data = as_json(capsys, "60x30", "--model", str(tmp_path), "--dtype", "fp32")
    assert data["inputs"][0]["tiles"] == 2
    assert data["bytes"]["weights"] == 4 * data["model"]["parameters"]["total"]
    square = native_config(tiny_config(), {"dynamic_image_size": False})
    (tmp_path / "config.json").write_text(json.dumps(square))
    _, data = as_json(capsys, "60x30", "--model", str(tmp_path))
    assert data["inputs"][0]["policy"]["kind"] == "square"
    assert main(["plan", "60x30", "--model", str(tmp_path), "--max-tiles", "2"]) == 2


def test_the_named_mini_is_what_its_recipe_trains() -> None:
    source = get_recipe("mono-mini").model
    vision = MINI.vision
    assert (vision.width, vision.patch, vision.tile) == (source.patch_width, source.patch, source.tile)
    assert MINI.decoder.visual_attention == source.visual_attention


def test_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    plan.print_table([plan.Planned("[bold]a.png", plan_media(30, 20, TilingPolicy(max_tiles=2)))])
    out = capsys.readouterr().out
    assert "[bold]a.png" in out
    assert "─" in out


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (23040, "23 kB"), (999_600, "1 MB"), (6.22e9, "6.22 GB"), (2e12, "2000 GB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert plan.in_bytes(count) == text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "nothing to plan; give pictures, videos, or sizes such as 1280x720"),
        (("nope.png",), "'nope.png' does not exist and is no size; give a picture, a video, or a size"),
        (("x" * 5000,), "xxx' does not exist and is no size"),
        (("0x10",), "a picture of 0 x 10 px has no pixels"),
        (("10x10", "--model", "minni"), "unknown model 'minni'; did you mean 'mini'?"),
        (("10x10", "--dtype", "bf61"), "unknown dtype 'bf61'; did you mean 'bf16'?"),
        (("10x10", "--dtype", "fp16"), "float16 overflows in Mono-InternVL"),
        (
            ("10x10", "--hd-num", "9", "--model", "mini"),
            "mini has a tiling of its own; name a model with global and local",
        ),
        (("10x10", "--hd-num", "9", "--max-tiles", "3"), "--max-tiles 3 belongs to tiling"),
        (("10x10", "--hd-num", "0"), "limit 0, scale 1.0: expected a limit >= 1"),
        (("10x10", "--hd-num", "2000"), "limit 2000, steps 0: expected a limit <= 1024 (the papers go to 65)"),
        (("10x10x3", "--hd-num", "9"), "videos are planned by a TilingPolicy"),
        (("10x10", "--frames", "0"), "--frames 0; expected at least 1"),
        (("10x10", "--new-tokens", "-1"), "--new-tokens -1; expected 0 or more"),
        (("10x10", "--max-tiles", "0"), "max_tiles 0: expected 1 <= min <= max"),
    ],
)
def test_messages(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str) -> None:
    status, out, err = run(capsys, *argv)
    assert status == 2
    assert not out
    assert message in err
    status, data = as_json(capsys, *argv)
    assert status == 2
    assert message in data["error"]["message"]


def test_a_broken_picture_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff not really")
    status, _, err = run(capsys, str(tmp_path / "broken.jpg"))
    assert status == 2
    assert "broken.jpg" in err
    assert "picture" in err


def test_unknown_options_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["plan", "10x10", "--max-tile", "3"])
    assert raised.value.code == 2
    assert "--max-tiles" in capsys.readouterr().err
