"""Tiny stand-ins for the sources and for the packages of registries, laid out as the real ones are."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import zipfile

import pytest
from PIL import Image, ImageDraw, ImageFont

from vedere.data.build.emoji_art import EMOJIBASE, STYLES
from vedere.data.build.typefaces import FAMILIES, all_typefaces, package_of

LABELS = ["t-shirt", "pants", "longsleeve", "shirt", "dress", "shorts", "shoes", "outwear", "hat", "skirt"]


def _photo(rng, size):
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(5):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        pen.rectangle((x, y, x + 20, y + 20), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


def _garments(folder, rng):
    rows = []
    for split, each in (("train", 3), ("validation", 2)):
        for label in LABELS:
            for index in range(each):
                name = f"{split}/{label}/{index:03d}.jpg"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _photo(rng, (90, 120)).save(folder / name)
                rows.append((name, split, label))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split", "label"), *rows])


def _nlvr(folder, rng):
    paint = {"Black": "black", "Yellow": "yellow", "#0099ff": "#0099ff"}
    for part, count in (("dev", 12), ("hidden", 12), ("test", 12)):
        lines = []
        for index in range(count):
            image = Image.new("RGB", (400, 100), (125, 125, 125))
            pen = ImageDraw.Draw(image)
            boxes = []
            for place in range(3):
                pen.rectangle((150 * place, 0, 150 * place + 99, 99), fill=(211, 211, 211))
                box = []
                for row in range(rng.randrange(4)):
                    colour, x = rng.choice(list(paint)), rng.randrange(5, 70)
                    box.append({"x_loc": x, "y_loc": 25 * row, "type": "square", "color": colour, "size": 20})
                    left = 150 * place + x
                    pen.rectangle((left, 25 * row, left + 19, 25 * row + 19), fill=paint[colour])
                boxes.append(box)
            name = f"images/{part}/{part}-{index}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / name)
            row = {"file": name, "sentence": "There is a black block.", "label": rng.choice(["true", "false"])}
            lines.append(json.dumps({**row, "identifier": str(index), "structured_rep": boxes}))
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")


def _omniglot(folder, rng):
    folder.mkdir(parents=True)
    for archive, alphabets in (
        ("images_background_small1", ["Korean", "Latin", "Balinese", "Greek"]),
        ("images_background_small2", ["Japanese_(katakana)", "Sanskrit", "Latin"]),
    ):
        with zipfile.ZipFile(folder / f"{archive}.zip", "w") as opened:
            for alphabet in alphabets:
                for drawer in range(1, 21):
                    strokes = random.Random(f"{alphabet}{drawer}")
                    image = Image.new("1", (105, 105), 1)
                    line = [(strokes.randrange(10, 95), strokes.randrange(10, 95)) for _ in range(5)]
                    ImageDraw.Draw(image).line(line, fill=0, width=2)
                    buffer = io.BytesIO()
                    image.save(buffer, "PNG")
                    name = f"{archive}/{alphabet}/character01/0001_{drawer:02d}.png"
                    opened.writestr(name, buffer.getvalue())


def _coco(folder, rng):
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(13):
        name = f"images/{index:012d}.jpg"
        _photo(rng, (160, 120)).save(folder / name)
        licence = "CC-BY-NC-2.0" if index == 12 else ("CC-BY-SA-2.0" if index % 2 else "CC-BY-2.0")
        captions = [f"A thing number {index} seen {how}." for how in ("here", "there", "now", "then", "again")]
        address = f"http://example.org/{index}.jpg"
        rows.append({"id": index, "file": name, "license": licence, "flickr_url": address, "captions": captions})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    rng = random.Random(0)
    _garments(root / "clothing-cc0", rng)
    _nlvr(root / "nlvr", rng)
    _omniglot(root / "omniglot-small", rng)
    _coco(root / "coco-ccby", rng)
    return root


EMOJI = {
    "1F40A": ("crocodile", 3, "animal-reptile", "鳄鱼", ["animal"]),
    "1F986": ("duck", 3, "animal-bird", "鸭子", ["animal", "bird"]),
    "1F426": ("bird", 3, "animal-bird", "鸟", ["animal"]),
    "1F436": ("dog face", 3, "animal-mammal", "狗脸", ["pet"]),
    "1F415": ("dog", 3, "animal-mammal", "狗", ["pet"]),
    "1F339": ("rose", 3, "plant-flower", "玫瑰", ["flower"]),
    "1F32D": ("hot dog", 4, "food-prepared", "热狗", ["sausage"]),
    "1F347": ("grapes", 4, "food-fruit", "葡萄", ["fruit"]),
    "2702-FE0F": ("scissors", 7, "office", "剪刀", ["cut"]),
    "1F511": ("key", 7, "lock", "钥匙", ["lock"]),
    "1F534": ("red circle", 8, "geometric", "红色圆", ["red"]),
    "25AA-FE0F": ("black small square", 8, "geometric", "小黑方块", ["square"]),
    "2764-FE0F": ("red heart", 0, "heart", "红心", ["love"]),
    "1F4D0": ("triangular ruler", 7, "office", "三角尺", ["set"]),
    "1F600": ("grinning face", 0, "face-smiling", "嘿嘿", ["smile"]),
    "0031-FE0F-20E3": ("keycap: 1", 8, "keycap", "键帽", []),
    "1F201": ("Japanese “here” button", 8, "alphanum", "这里", []),
    "1F1EB-1F1F7": ("flag: France", 9, "country-flag", "法国", []),
}


def _emojibase(folder):
    orders = {name: order for order, name in enumerate(sorted({row[2] for row in EMOJI.values()}))}
    english = [
        {"hexcode": code, "label": label, "group": group, "subgroup": orders[subgroup], "order": order, "tags": tags}
        for order, (code, (label, group, subgroup, _, tags)) in enumerate(EMOJI.items())
    ]
    files = {
        "en/data.json": [*english, {"hexcode": "1F1E6", "label": "regional indicator A"}],
        "zh/data.json": [{"hexcode": code, "label": row[3]} for code, row in EMOJI.items()],
        "en/messages.json": {"subgroups": [{"key": name, "order": order} for name, order in orders.items()]},
        "en/shortcodes/github.json": {"1F40A": "gator", "1F986": ["quack", "duck"]},
        "meta/unicode-names.json": {"1F4D0": "TRIANGULAR RULER", "2764-FE0F": "HEAVY BLACK HEART"},
    }
    _write(folder, files)


def _write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _icon_set(folder, style):
    icons, chars = {}, {}
    for code, (label, *_) in EMOJI.items():
        rng = random.Random(f"{style.name}{code}")
        corners = " ".join(f"{rng.randrange(2, 30)},{rng.randrange(2, 30)}" for _ in range(6))
        fill = "currentColor" if style.ink else f"rgb({rng.randrange(160)},{rng.randrange(160)},90)"
        icons[label.replace(" ", "-")] = {"body": f'<polygon points="{corners}" fill="{fill}"/>'}
        chars[code.lower()] = label.replace(" ", "-")
    if style.name == "fxemoji":
        # As in the real set: "dog" is the face, and names are run together.
        icons = {name.replace("-", ""): icon for name, icon in icons.items()}
        icons["dogside"], icons["dog"] = icons.pop("dog"), icons.pop("dogface")
    own = style.name not in ("fluent-emoji", "emojione-v1", "emojione", "fxemoji")
    aliases = {} if own else {"gator": {"parent": "crocodile"}}
    files = {
        "icons.json": {"icons": icons, "aliases": aliases, "width": 32, "height": 32},
        "chars.json": chars if own else {},
    }
    _write(folder, files)


def _easy_vqa(folder):
    looks = [(shape, colour) for shape in ("circle", "rectangle", "triangle") for colour in ("red", "teal", "gray")]
    for split, first in (("train", 0), ("test", 3)):
        rows = []
        (folder / split / "images").mkdir(parents=True)
        for number, (shape, colour) in enumerate(looks):
            image = Image.new("RGB", (64, 64), (240, 240, 250))
            x = 4 * number + first
            pen = ImageDraw.Draw(image)
            draw = {"circle": pen.ellipse, "rectangle": pen.rectangle, "triangle": pen.rectangle}[shape]
            draw((x, 20, x + 14, 40), fill=colour)
            image.save(folder / split / "images" / f"{number}.png")
            rows += [[f"is there a {shape}?", "yes", number], ["is no blue shape present?", "yes", number]]
            rows += [[f"what is the {colour} shape?", shape, number], ["what color is the shape?", colour, number]]
        (folder / split / "questions.json").write_text(json.dumps(rows))


def _typefaces(npm):
    """Every family is Pillow's own font here; a file says woff2 and FreeType looks inside."""
    (npm / "font").write_bytes(ImageFont.load_default(20).font_bytes)
    for family in (family for families in FAMILIES.values() for family in families):
        package, version = package_of(family)
        folder = npm / f"{package.replace('/', '--')}-{version}"
        _write(folder, {"package.json": {"license": "OFL-1.1"}})
        (folder / "files").mkdir()
        (folder / "files" / f"{family}-latin-400-normal.woff2").hardlink_to(npm / "font")


@pytest.fixture(scope="session", autouse=True)
def packages(tmp_path_factory):
    """A cache folder in which every package lies already, so that nothing is fetched."""
    cache = tmp_path_factory.mktemp("cache")
    _emojibase(cache / "npm" / "-".join(EMOJIBASE))
    for style in STYLES:
        _icon_set(cache / "npm" / f"{style.package.replace('/', '--')}-{style.version}", style)
    _typefaces(cache / "npm")
    all_typefaces.cache_clear()
    _easy_vqa(cache / "pypi" / "easy-vqa-1.0" / "easy_vqa" / "data")
    before = os.environ.get("VEDERE_CACHE")
    os.environ["VEDERE_CACHE"] = str(cache)
    yield cache
    all_typefaces.cache_clear()
    if before is None:
        del os.environ["VEDERE_CACHE"]
    else:
        os.environ["VEDERE_CACHE"] = before
