"""Emoji: about a thousand named things in eight drawing styles, one of which is only ever asked, never trained.

The point is transfer: who learned "crocodile" from seven artists should name the eighth's. Every name gets as many
pictures as any other, and its styles take turns. Training pictures vary in ground, size, place, turn, colour, brightness
and sharpness, and are mirrored where left and right mean nothing; a held-out picture stands upright in the middle of a plain
ground. Grounds are chosen so that the drawing's edge can be seen.

What EViP (arXiv:2410.08202, section 3.3) takes from web pictures with noisy labels for S1.1 are here the words that people
search an emoji by.

Cost: about 7 ms a picture, half of it in the drawing of gradients; see `emoji_art`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from vedere.data.build.canvas import Colour
from vedere.data.build.emoji_art import STYLES, Icon, Style, emojibase, icons_of, ready, render
from vedere.data.build.emoji_names import THINGS, Name, names
from vedere.data.build.emoji_phrases import phrase, question
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

EMOJI_SIDE = 160
"""Side of a picture in pixels: larger than the other kinds', because the drawings have fine parts."""
NAME_ASKS = (
    *("What is this?",) * 3,
    *("What does the picture show?",) * 3,
    "Which emoji is this?",
    "Name the object.",
    "What is shown here?",
)
CHINESE_ASKS = ("这是什么？", "图里是什么？")
_THING_ASKS = ("What kind of thing is this?", "What kind of thing does the picture show?")
_MIRRORED = ("animal", "plant", "food", "drink", "body part")
_WHITE: Colour = (255, 255, 255)
_PLAIN: tuple[Colour, ...] = ((232, 236, 242), (40, 44, 52), (255, 214, 120), (120, 170, 230))
"""Grounds of held-out pictures whose drawing would be lost on white, in the order in which they are tried."""


def _gradient(first: Colour, second: Colour, rng: random.Random) -> Image.Image:
    """Return a soft gradient in a random direction."""
    across, down = rng.uniform(-1, 1), rng.uniform(-1, 1)
    line = np.linspace(0.0, 1.0, EMOJI_SIDE)
    ramp = across * line[None, :] + down * line[:, None]
    ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
    mixed = np.array(first) * (1 - ramp[..., None]) + np.array(second) * ramp[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _random_ground(rng: random.Random) -> Image.Image:
    kind = rng.random()
    if kind < 0.45:
        return Image.new("RGB", (EMOJI_SIDE, EMOJI_SIDE), _WHITE)
    light, dark = ([rng.randint(low, high) for _ in range(6)] for low, high in ((180, 255), (0, 255)))
    if kind < 0.65:
        return _gradient((light[0], light[1], light[2]), (light[3], light[4], light[5]), rng)
    red, green, blue, *_ = light if kind < 0.85 else dark
    return Image.new("RGB", (EMOJI_SIDE, EMOJI_SIDE), (red, green, blue))


def stands_out(drawing: Image.Image, ground: Image.Image) -> bool:
    """Say whether at least half of the drawing's edge differs clearly from the ground.

    Args:
        drawing: RGBA.
        ground: RGB of the same size.
    """
    alpha = drawing.getchannel("A").point(lambda value: 255 * (value > 128))
    edge = np.asarray(alpha) > np.asarray(alpha.filter(ImageFilter.MinFilter(5)))
    if not edge.any():
        return False
    inks = np.asarray(drawing.convert("RGB"), dtype=np.int16)[edge]
    return bool((np.abs(inks - np.asarray(ground, dtype=np.int16)[edge]).sum(1) > 60).mean() >= 0.5)


def _on_ground(drawing: Image.Image, grounds: Iterator[Image.Image]) -> Image.Image:
    """Paste a drawing on the first ground that it stands out from, or on the last one."""
    ground = next(grounds)
    for other in grounds:
        if stands_out(drawing, ground):
            break
        ground = other
    ground.paste(drawing, (0, 0), drawing)
    return ground


def plain_picture(icon: Icon) -> Image.Image:
    """Return a held-out picture: upright, in the middle, on white if that sets it off."""
    grounds = (Image.new("RGB", (EMOJI_SIDE, EMOJI_SIDE), colour) for colour in (_WHITE, *_PLAIN))
    return _on_ground(render(icon, EMOJI_SIDE), grounds)


def varied_picture(icon: Icon, name: Name, style: Style, rng: random.Random) -> Image.Image:
    """Return a training picture."""
    scale = rng.uniform(0.55, 0.98)
    reach = (1 - scale) / 2 + 0.02
    dark = rng.random() < 0.8
    ink = "#" + "".join(f"{rng.randint(0, 90) if dark else rng.randint(190, 255):02x}" for _ in range(3))
    drawing = render(
        icon,
        EMOJI_SIDE,
        scale=scale,
        shift=(rng.uniform(-reach, reach), rng.uniform(-reach, reach)),
        turn=rng.uniform(-12, 12) if rng.random() < 0.7 else 0.0,
        mirrored=name.thing in _MIRRORED and rng.random() < 0.4,
        ink=ink if style.ink and rng.random() < 0.7 else "#141414",
    )
    image = _on_ground(drawing, (_random_ground(rng) for _ in range(12)))
    if not name.colours:
        if rng.random() < 0.07:
            image = image.convert("L").convert("RGB")
        elif rng.random() < 0.6:
            image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.12))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.3))) if rng.random() < 0.12 else image


@lru_cache(maxsize=2)
def _others(folder: Path) -> Mapping[str, Sequence[Name]]:
    """Code -> names of the same group that cannot be true of its picture."""
    known = list(names(folder).values())
    return {
        name.code: [other for other in known if other.group == name.group and not name.may_be(other)] for name in known
    }


def _thing_ask(name: Name, rng: random.Random) -> Ask:
    """Ask for the kind of thing: freely, from a choice, or one of them yes or no."""
    form = rng.random()
    if form < 0.4:
        return Ask(question=rng.choice(_THING_ASKS), answer=name.thing, question_type="thing")
    wrong = [thing for thing in THINGS if thing != name.thing and {thing, name.thing} != {"food", "plant"}]
    if form < 0.7:
        offered = [name.thing, *rng.sample(wrong, rng.choice((2, 3)))]
        rng.shuffle(offered)
        listed = [thing if thing == "food" else article(thing) for thing in offered]
        text = f"Is it {', '.join(listed[:-1])} or {listed[-1]}?"
        return Ask(question=text, answer=name.thing, question_type="thing")
    told = name.thing if rng.random() < 0.5 else rng.choice(wrong)
    text = f"Is this {told if told == 'food' else article(told)}?"
    return Ask(question=text, answer="yes" if told == name.thing else "no", question_type="check_thing")


def asks_of(name: Name, others: Sequence[Name], rng: random.Random) -> tuple[Ask, ...]:
    """Return the questions about a picture, the name most often first.

    Args:
        name: what is shown.
        others: what could be asked for instead, in vain.
        rng: their order and phrasing.
    """
    named = Ask(question=rng.choice(NAME_ASKS), answer=name.label, question_type="name")
    caption = f"a drawing of {phrase(name.label)}"
    seen = Ask(question=rng.choice(CAPTION_PROMPTS), answer=caption, question_type="describe")
    options = [(5.0, named), (0.5, seen)]
    if others:
        told = name if rng.random() < 0.5 else rng.choice(others)
        answer = "yes" if told is name else "no"
        options.append((1.3, Ask(question=question(told.label), answer=answer, question_type="check")))
    if name.thing:
        options.append((0.7, _thing_ask(name, rng)))
    if name.chinese:
        options.append(
            (0.25, Ask(question=rng.choice(CHINESE_ASKS), answer=name.chinese, question_type="name_chinese"))
        )
    return tuple(weighted_order(rng, options))


def _drawn(split: Split, seed: int) -> Iterator[tuple[Style, str]]:
    """Yield style and code of each picture: without end for training, each held-out drawing once."""
    styles = [style for style in STYLES if style.heldout == (split == "heldout")]
    in_style = {style: icons_of(style) for style in styles}
    codes = [code for code in names(emojibase()) if any(code in icons for icons in in_style.values())]
    turns = {code: [style for style in styles if code in in_style[style]] for code in codes}
    for code, order in turns.items():
        stream(seed, "emoji", split, "styles", code).shuffle(order)
    passes = 0
    while codes and (passes == 0 or split == "train"):
        stream(seed, "emoji", split, "order", passes).shuffle(codes)
        yield from ((turns[code][passes % len(turns[code])], code) for code in codes)
        passes += 1


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` pictures for training, or up to `count` held-out ones: one of each drawing of the held-out style."""
    known, others = names(emojibase()), _others(emojibase())
    for index, (style, code) in zip(range(count), _drawn(split, seed), strict=False):
        rng = stream(seed, "emoji", split, index)
        name, icon = known[code], icons_of(style)[code]
        asks = asks_of(name, others[code], rng)
        caption = f"a drawing of {phrase(name.label)}"
        alignment = captions_as_asks((caption,), rng)
        tags = rng.sample(name.tags, min(2, len(name.tags)))
        yield Item(
            image=plain_picture(icon) if split == "heldout" else varied_picture(icon, name, style, rng),
            labels=(name.label, name.label, phrase(name.label), *tags),
            captions=(caption, f"{phrase(name.label)} drawn as an emoji"),
            alignment=(*alignment, *(ask for ask in asks if ask.question_type in ("name", "name_chinese"))),
            asks=asks,
            key=f"{style.name}/{code}",
            licence=style.licence,
            attribution=style.attribution,
        )


KIND = Kind(
    name="emoji",
    share=0.3,
    make=make,
    ready=ready,
    ledger=("emojibase-data", *(style.name for style in STYLES)),
)
