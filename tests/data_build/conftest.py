"""Tiny stand-ins for the sources, laid out as the real ones are."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile

import pytest
from PIL import Image, ImageDraw

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
