"""Handwritten characters of five alphabets (Omniglot, MIT): which alphabet, and which Latin letter.

Each character was drawn by twenty people; drawers 1 to 16 train, 17 to 20 are held out, so a held-out picture shows a
known character in an unknown hand. Strokes are thickened to survive 160 px. The source's Latin characters 1 to 26 are
the letters a to z.

Cost: about 2 ms a picture.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFilter

from vedere.data.build.canvas import finish, new_canvas, shade
from vedere.data.build.record import LABEL_PROMPTS, Ask, Item, Kind, Split, captions_as_asks, stream, weighted_order

ALPHABETS = {
    "Latin": "Latin",
    "Korean": "Korean",
    "Japanese_(katakana)": "Japanese",
    "Sanskrit": "Sanskrit",
    "Balinese": "Balinese",
}
ARCHIVES = ("images_background_small1.zip", "images_background_small2.zip")
_PER_ALPHABET = 480
_TRAIN_DRAWERS = 16


def _members(split: Split, seed: int, folder: Path) -> list[tuple[str, str, str, int]]:
    """Return (archive, member, alphabet, character) of one split, each alphabet about equally often."""
    chosen: dict[str, list[tuple[str, str, str, int]]] = {name: [] for name in ALPHABETS.values()}
    seen = set()
    for archive in ARCHIVES:
        with zipfile.ZipFile(folder / archive) as opened:
            for member in sorted(opened.namelist()):
                parts = member.split("/")
                if not member.endswith(".png") or parts[-3] not in ALPHABETS:
                    continue
                identity = "/".join(parts[-3:])
                drawer = int(parts[-1].removesuffix(".png").split("_")[1])
                if identity in seen or (drawer <= _TRAIN_DRAWERS) != (split == "train"):
                    continue
                seen.add(identity)
                name = ALPHABETS[parts[-3]]
                chosen[name].append((archive, member, name, int(parts[-2].removeprefix("character"))))
    rng = stream(seed, "handwriting", split)
    limit = _PER_ALPHABET if split == "train" else 100
    for rows in chosen.values():
        rng.shuffle(rows)
    rows = [row for part in chosen.values() for row in part[:limit]]
    rng.shuffle(rows)
    return rows


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield up to `count` characters."""
    archives = {archive: zipfile.ZipFile(folder / archive) for archive in ARCHIVES}
    try:
        for index, (archive, member, alphabet, character) in enumerate(_members(split, seed, folder)[:count]):
            rng = stream(seed, "handwriting", split, index)
            with Image.open(io.BytesIO(archives[archive].read(member))) as opened:
                strokes = opened.convert("L").filter(ImageFilter.MinFilter(3))
            dark = rng.random() < 0.3
            ink, ground = ("white", "black") if dark else (rng.choice(("black", "blue", "red")), "white")
            canvas, _ = new_canvas(shade(ground, rng))
            mask = strokes.resize(canvas.size, Image.Resampling.BILINEAR).point([255 - value for value in range(256)])
            angle = rng.uniform(-6, 6) if split == "train" else 0.0
            canvas.paste(shade(ink, rng), (0, 0), mask.rotate(angle, Image.Resampling.BILINEAR))
            which = Ask(
                question=rng.choice(("Which alphabet is this?", "Which script is this?")),
                answer=alphabet,
                question_type="alphabet",
            )
            phrase = f"a handwritten {alphabet} character"
            options = [
                (2.0, which),
                (0.4, Ask(question=rng.choice(LABEL_PROMPTS[1:]), answer=phrase, question_type="describe")),
            ]
            if alphabet == "Latin" and 1 <= character <= 26:
                letter = "abcdefghijklmnopqrstuvwxyz"[character - 1]
                options.append((4.0, Ask(question="Which letter is this?", answer=letter, question_type="letter")))
            yield Item(
                image=finish(canvas, rng),
                labels=(f"{alphabet} character", "handwriting"),
                captions=(phrase,),
                alignment=(*captions_as_asks((phrase,), rng), which),
                asks=tuple(weighted_order(rng, options)),
                key=member,
                licence="MIT",
                attribution="Omniglot (Brenden Lake, Ruslan Salakhutdinov, Joshua Tenenbaum)",
            )
    finally:
        for opened_archive in archives.values():
            opened_archive.close()


KIND = Kind(
    name="handwriting",
    share=0.03,
    make=make,
    folder="omniglot-small",
    looks_for=ARCHIVES,
    ledger=("omniglot-small",),
)
