"""Rendered text: a digit, a letter, a number of two digits or a short word in large type.

The type fills the picture (a letter of a four-letter word is about 25 px wide, a visual token), is turned
slightly and comes in several typefaces: those that Python packages carry (matplotlib's DejaVu, STIX and Computer
Modern where it is installed, Pillow's own scalable font otherwise). Letters that equal digits (O, I) are left out as
single characters. Words are in capitals and are answered in capitals.

Cost: about 4 ms a picture.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vedere.data.build.canvas import COLOURS, GROUNDS, LARGE, Colour, apart, finish, shade
from vedere.data.build.record import (
    CAPTION_PROMPTS,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    stream,
    weighted_order,
)

# fmt: off
WORDS = (
    "BANK", "BIKE", "BOOK", "BUS", "CAFE", "CAR", "CAT", "CITY",
    "COLD", "DOG", "EXIT", "FIRE", "FISH", "GATE", "GOLD", "HELP",
    "HOT", "JAZZ", "KEY", "MENU", "MILK", "OPEN", "PARK", "PULL",
    "PUSH", "ROAD", "SALE", "SHOP", "STOP", "TAXI", "TEA", "ZOO",
)
# fmt: on
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
    "cmss10",
)
_ASKS = {
    "digit": ("Which digit is shown?", "What digit is this?", "What number is this?"),
    "letter": ("Which letter is shown?", "What letter is this?"),
    "number": ("Which number is shown?", "What number is this?"),
    "word": ("What does the sign say?", "What word is this?", "Read the text."),
}


@lru_cache(maxsize=1)
def typefaces() -> tuple[str, ...]:
    """Return the font files in use, "" standing for Pillow's own; matplotlib is located, not imported."""
    found = [""]
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        found += [str(folder / f"{face}.ttf") for face in _FACES if (folder / f"{face}.ttf").is_file()]
    return tuple(found)


@lru_cache(maxsize=256)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(face, size) if face else ImageFont.load_default(size)


def render_text(text: str, ink: Colour, ground: Colour, rng: random.Random, *, frame: bool = False) -> Image.Image:
    """Return a large picture with the text as big as fits, slightly turned and shifted, perhaps inside a frame."""
    face = rng.choice(typefaces())
    left, top, right, bottom = _font(face, 100).getbbox(text)
    fill = rng.uniform(0.68, 0.86) if len(text) <= 2 else rng.uniform(0.82, 0.9)
    fill *= 0.9 if frame else 1.0
    size = int(100 * min(fill * LARGE / (right - left), fill * 0.9 * LARGE / (bottom - top)))
    size -= size % 4
    font = _font(face, size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (LARGE, LARGE), 0)
    slack_x, slack_y = (LARGE - (right - left)) / 2, (LARGE - (bottom - top)) / 2
    x = slack_x * (1 + 0.5 * rng.uniform(-1, 1)) - left
    y = slack_y * (1 + 0.5 * rng.uniform(-1, 1)) - top
    ImageDraw.Draw(image).text((x, y), text, fill=255, font=font)
    mask = image.rotate(rng.uniform(-8, 8) if len(text) <= 2 else rng.uniform(-5, 5), Image.Resampling.BILINEAR)
    page = Image.new("RGB", (LARGE, LARGE), ground)
    if frame:
        ImageDraw.Draw(page).rectangle((6, 6, LARGE - 7, LARGE - 7), outline=ink, width=9)
    page.paste(ink, (0, 0), mask)
    return page


def _draw_text(rng: random.Random) -> tuple[str, str]:
    group = rng.choices(("digit", "letter", "number", "word"), weights=(40, 22, 8, 30))[0]
    if group == "digit":
        return group, str(rng.randrange(10))
    if group == "letter":
        return group, rng.choice(LETTERS)
    if group == "number":
        return group, str(rng.randrange(10, 100))
    return group, rng.choice(WORDS)


def _another(group: str, text: str, rng: random.Random) -> str:
    pools = {"digit": "0123456789", "letter": LETTERS, "number": [str(n) for n in range(10, 100)], "word": WORDS}
    return rng.choice([other for other in pools[group] if other != text])


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` pictures of text."""
    for index in range(count):
        rng = stream(seed, "words", split, index)
        group, text = _draw_text(rng)
        ink = rng.choice(list(COLOURS))
        ground = rng.choice([name for name in GROUNDS if apart(name, ink)])
        image = render_text(text, shade(ink, rng), shade(ground, rng), rng, frame=rng.random() < 0.25)
        phrase = f'the {group} "{text}"' if group == "word" else f"the {group} {text}"
        read = Ask(question=rng.choice(_ASKS[group]), answer=text, question_type=f"read_{group}")
        told = text if rng.random() < 0.5 else _another(group, text, rng)
        check = Ask(
            question=f"Does it say {told}?" if group == "word" else f"Is this the {group} {told}?",
            answer="yes" if told == text else "no",
            question_type=f"check_{group}",
        )
        tint = Ask(
            question=f"What {rng.choice(('color', 'colour'))} is the text?", answer=ink, question_type="text_colour"
        )
        caption = f"{phrase} in {ink} on {article(ground)} background"
        seen = Ask(question=rng.choice(CAPTION_PROMPTS), answer=phrase, question_type="describe")
        yield Item(
            image=finish(image, rng, noise=rng.choice((0.0, 0.0, 4.0, 8.0))),
            labels=(text, phrase),
            captions=(caption, phrase),
            alignment=(*captions_as_asks((caption,), rng), read, read),
            asks=tuple(weighted_order(rng, [(4.0, read), (0.5, check), (0.4, tint), (0.5, seen)])),
        )


KIND = Kind(name="words", share=0.24, make=make)
