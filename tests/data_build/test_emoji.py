from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from vedere.data.build import emoji, emoji_art
from vedere.data.build.emoji_art import STYLES, Icon, emojibase, icons_of, render
from vedere.data.build.emoji_icons import ICONS
from vedere.data.build.emoji_names import THINGS, match_icons, names
from vedere.data.build.emoji_phrases import is_plural, phrase, question
from vedere.data.build.ledger import SOURCES, page
from vedere.errors import ConfigError, MediaError

HELDOUT = [style for style in STYLES if style.heldout]
BAR = Icon(body='<rect x="2" y="12" width="28" height="8" fill="currentColor"/>', width=32, height=32)


def labels():
    return {name.label for name in names(emojibase()).values()}


def items(split, count, seed=0):
    return list(emoji.make(split, count, seed, Path()))


# --- styles ---------------------------------------------------------------------------------------------------------


def test_the_style_kept_for_tests_by_others_is_nowhere():
    styles = " ".join(f"{style.name} {style.package} {style.attribution}" for style in STYLES)
    drawn = " ".join(
        f"{source.name} {source.title} {source.origin}" for source in SOURCES if "emoji" in source.used_for
    )
    assert "noto" not in f"{styles} {drawn}".lower()
    assert not re.search(r"noto\W{0,3}(color\W)?emoji", page(), re.IGNORECASE)


def test_every_style_stands_in_the_ledger_with_its_licence_and_its_artists():
    ledger = {source.name: source for source in SOURCES}
    for style in STYLES:
        assert style.name in emoji.KIND.ledger
        assert ledger[style.name].licence == style.licence
        assert f"{style.package} {style.version}" in ledger[style.name].origin
        assert ledger[style.name].attribution != "none needed"
        assert style.attribution
        assert ("held out" in ledger[style.name].used) == style.heldout


def test_splits_share_no_style():
    seen = {split: {item.key.split("/")[0] for item in items(split, 150)} for split in ("train", "heldout")}
    assert seen["heldout"] == {style.name for style in HELDOUT}
    assert seen["train"] == {style.name for style in STYLES} - seen["heldout"]


def test_without_the_renderer_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ConfigError, match=r"resvg-py, which is not installed; .* pip install 'vedere\[corpus\]'"):
        emoji.ready()


def test_sets_without_code_points_are_matched_by_name_or_by_table():
    known = {name.label: code for code, name in names(emojibase()).items()}
    found = match_icons(emojibase(), "other", ["gator", "Triangular_Ruler", "dogface", "nothing", "grinning-face"])
    assert found == {
        known["crocodile"]: "gator",
        known["triangular ruler"]: "Triangular_Ruler",
        known["dog face"]: "dogface",
    }
    found = match_icons(emojibase(), "fxemoji", ["dog", "dogside", "window"])
    assert found == {known["dog face"]: "dog", known["dog"]: "dogside"}
    assert match_icons(emojibase(), "other", ["duck", "quack"]) == {known["duck"]: "duck"}
    assert ICONS.keys() == {style.name for style in STYLES if style.name.startswith(("emojione", "fx"))}


def test_one_colour_says_no_colour():
    for style in STYLES:
        coloured = {names(emojibase())[code].label for code in icons_of(style)} & {"red circle", "red heart"}
        assert coloured == (set() if style.ink else {"red circle", "red heart"})


# --- names ----------------------------------------------------------------------------------------------------------


def test_smileys_flags_keycaps_and_sizes_are_no_names():
    found = labels()
    assert {"crocodile", "hot dog", "black square", "red heart"} <= found
    assert not {"grinning face", "black small square", "regional indicator A"} & found
    assert not [label for label in found if label.startswith(("keycap", "Japanese “", "flag"))]
    assert all(name.thing in ("", *THINGS) for name in names(emojibase()).values())
    assert next(name for name in names(emojibase()).values() if name.label == "black square").chinese == ""


def test_wrong_names_are_wrong():
    by_label = {name.label: name for name in names(emojibase()).values()}
    others = {by_label[label].code: {name.label for name in rest} for label, rest in _pools(by_label).items()}
    assert others[by_label["duck"].code] == {"crocodile", "dog face", "dog", "rose"}  # a duck is a bird
    assert "duck" not in others[by_label["bird"].code]
    assert "dog" not in others[by_label["dog face"].code]
    assert others[by_label["red circle"].code] == {"black square"}


def _pools(by_label):
    return {label: emoji._others(emojibase())[name.code] for label, name in by_label.items()}


@pytest.mark.parametrize(
    ("label", "text", "asked"),
    [
        ("crocodile", "a crocodile", "Is this a crocodile?"),
        ("orange book", "an orange book", "Is this an orange book?"),
        ("unicorn", "a unicorn", "Is this a unicorn?"),
        ("hourglass", "an hourglass", "Is this an hourglass?"),
        ("scissors", "scissors", "Are these scissors?"),
        ("clinking glasses", "clinking glasses", "Are these clinking glasses?"),
        ("glass of milk", "a glass of milk", "Is this a glass of milk?"),
        ("nest with eggs", "a nest with eggs", "Is this a nest with eggs?"),
        ("cooked rice", "cooked rice", "Is this cooked rice?"),
        ("three o'clock", "three o'clock", "Is this three o'clock?"),
        ("no bicycles", "no bicycles", "Is this no bicycles?"),
        ("Statue of Liberty", "the Statue of Liberty", "Is this the Statue of Liberty?"),
        ("octopus", "an octopus", "Is this an octopus?"),
    ],
)
def test_names_in_sentences(label, text, asked):
    assert phrase(label) == text
    assert question(label) == asked
    assert is_plural(label) == asked.startswith("Are")


# --- pictures -------------------------------------------------------------------------------------------------------


def test_every_name_is_trained_equally_often_and_styles_take_turns():
    count = len(names(emojibase()))
    drawn = list(islice(emoji._drawn("train", 4), 7 * count))
    assert set(Counter(code for _, code in drawn).values()) == {7}
    per_style = Counter((style.name, code) for style, code in drawn)
    assert max(per_style.values()) == 2  # seven turns of six or seven styles
    heldout = list(emoji._drawn("heldout", 4))
    assert len(heldout) == len({code for _, code in heldout}) == len(icons_of(HELDOUT[0]))


def test_heldout_pictures_stand_upright_in_the_middle():
    picture = np.asarray(emoji.plain_picture(BAR))
    ink = (picture != 255).any(2)
    assert (picture[~ink] == 255).all()
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert abs(rows[0] + rows[-1] - 159) <= 2
    assert abs(columns[0] + columns[-1] - 159) <= 2
    assert columns[-1] - columns[0] == pytest.approx(0.9 * 160 * 28 / 32, abs=2)


def test_render_turns_mirrors_and_moves_as_told():
    wedge = Icon(body='<path d="M2 30 L30 30 L2 2 Z"/>', width=32, height=32)
    plain = np.asarray(render(wedge, 100).getchannel("A"), dtype=int)
    flipped = np.asarray(render(wedge, 100, mirrored=True).getchannel("A"), dtype=int)
    assert np.abs(plain - flipped[:, ::-1]).mean() < 2
    turned = np.asarray(render(wedge, 100, turn=90).getchannel("A"), dtype=int)
    assert np.abs(np.rot90(plain, -1) - turned).mean() < 2
    moved = np.asarray(render(wedge, 100, shift=(0.05, -0.02)).getchannel("A"), dtype=int)
    assert np.abs(np.roll(plain, (-2, 5), (0, 1)) - moved).mean() < 2


class PanicException(BaseException):
    """What a panic of the renderer, written in Rust, arrives as."""


def test_a_size_at_which_the_renderer_panics_is_drawn_slightly_smaller(monkeypatch):
    real, asked = emoji_art.renderer(), []

    def fails_first(**given):
        asked.append(given["svg_string"])
        if len(asked) == 1:
            raise PanicException("index out of bounds")
        return real(**given)

    monkeypatch.setattr(emoji_art, "renderer", lambda: fails_first)
    columns = np.flatnonzero(np.asarray(render(BAR, 160).getchannel("A")).any(0))
    assert len(asked) == 2
    assert columns[-1] - columns[0] == pytest.approx(0.98 * 0.9 * 160 * 28 / 32, abs=2)


def test_a_drawing_that_no_size_helps_is_named_and_ctrl_c_passes(monkeypatch):
    def fails(**given):
        raise PanicException("index out of bounds")

    def interrupted(**given):
        raise KeyboardInterrupt

    monkeypatch.setattr(emoji_art, "renderer", lambda: fails)
    with pytest.raises(MediaError, match=r"an icon of 32 x 32 units cannot be rendered at 160 px: <rect x="):
        render(BAR, 160)
    monkeypatch.setattr(emoji_art, "renderer", lambda: interrupted)
    with pytest.raises(KeyboardInterrupt):
        render(BAR, 160)


def test_drawings_stand_out_from_their_ground():
    for ink, colour in (("#ffffff", (255, 255, 255)), ("#222222", (30, 30, 30))):
        drawing = render(BAR, 160, ink=ink)
        assert not emoji.stands_out(drawing, Image.new("RGB", (160, 160), colour))
        assert emoji.stands_out(drawing, Image.new("RGB", (160, 160), (120, 170, 60)))
    assert not emoji.stands_out(Image.new("RGBA", (160, 160)), Image.new("RGB", (160, 160)))
    white = Icon(body='<circle cx="16" cy="16" r="12" fill="#fff"/>', width=32, height=32)
    assert emoji.plain_picture(white).getpixel((0, 0)) != (255, 255, 255)
    assert len(np.unique(np.asarray(emoji.plain_picture(white)))) > 1


def test_training_pictures_of_one_drawing_differ():
    style = STYLES[0]
    code, icon = next(iter(icons_of(style).items()))
    name = names(emojibase())[code]
    pictures = [np.asarray(emoji.varied_picture(icon, name, style, Random(seed)), dtype=int) for seed in range(6)]
    assert all(picture.shape == (160, 160, 3) for picture in pictures)
    assert all(np.abs(pictures[0] - other).mean() > 2 for other in pictures[1:])


def test_names_of_colours_keep_their_colour():
    style = next(style for style in STYLES if not style.ink)
    red = Icon(body='<circle cx="16" cy="16" r="14" fill="#dd2e44"/>', width=32, height=32)
    name = next(name for name in names(emojibase()).values() if name.label == "red circle")
    for seed in range(60):
        picture = np.asarray(emoji.varied_picture(red, name, style, Random(seed)), dtype=int)
        assert (picture[..., 0] > 1.5 * picture[..., 1:].max(2)).sum() > 2000


# --- questions ------------------------------------------------------------------------------------------------------


def test_answers_follow_from_the_name():
    by_code = names(emojibase())
    seen, truths = Counter(), Counter()
    for item in items("train", 400):
        name = by_code[item.key.split("/")[1]]
        assert name.label in item.labels
        for ask in item.asks:
            seen[ask.question_type] += 1
            if ask.question_type == "name":
                assert ask.answer == name.label
            elif ask.question_type == "name_chinese":
                assert ask.answer == name.chinese
            elif ask.question_type == "describe":
                assert ask.answer == f"a drawing of {phrase(name.label)}"
            elif ask.question_type == "check":
                truths[ask.answer] += 1
                assert (ask.answer == "yes") == (ask.question == question(name.label))
            elif ask.question_type == "thing":
                assert ask.answer == name.thing
                assert ask.question.startswith("What kind") or name.thing in ask.question
            else:
                assert ask.question_type == "check_thing"
                told = ask.question.removesuffix("?").split(" ", 2)[2].removeprefix("an ").removeprefix("a ")
                assert (ask.answer == "yes") == (told == name.thing)
    assert set(seen) == {"name", "name_chinese", "describe", "check", "thing", "check_thing"}
    assert abs(truths["yes"] / truths.total() - 0.5) < 0.1


def test_the_name_is_asked_first_most_often():
    first = Counter(item.asks[0].question_type for item in items("train", 400))
    assert 0.5 < first["name"] / 400 < 0.8
    assert first["name_chinese"] / 400 < 0.1


def test_items_follow_from_their_arguments():
    first, again, other = items("train", 12, 1), items("train", 12, 1), items("train", 12, 2)
    assert [(item.key, item.asks, item.image.tobytes()) for item in first] == [
        (item.key, item.asks, item.image.tobytes()) for item in again
    ]
    assert [item.image.tobytes() for item in first] != [item.image.tobytes() for item in other]
