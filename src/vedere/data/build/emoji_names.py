"""Names of emoji in plain words: what an icon shows, what kind of thing that is, and which icons of a set are meant.

Names, tags, groups and Chinese names come from `emojibase-data` (MIT; its labels are those of Unicode CLDR). Left out:
smileys, people, flags, keycaps and buttons with Japanese writing. Names that differ only in the size of one shape are one
name here, since a picture says nothing about size.

Sets of icons that carry no code points are matched by name: the letters of an icon's name must be those of one label,
of the Unicode name or of a shortcode, and of one emoji only. What that leaves over or gets wrong stands in a table per set,
made by looking at the icons.

Cost: reading 2 MB of JSON once; about 50 ms.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vedere.data.build.emoji_icons import ICONS

THINGS = ("animal", "plant", "food", "drink", "vehicle", "place", "activity", "object", "body part", "symbol")
"""Answers to "What kind of thing is this?"."""

_GROUPS = {3: "animal", 4: "food", 5: "place", 6: "activity", 7: "object", 8: "symbol"}
_SUBGROUPS = {
    "plant-flower": "plant",
    "plant-other": "plant",
    "dishware": "object",
    "drink": "drink",
    "hotel": "object",
    "sky-weather": "",
    "time": "object",
    "transport-air": "vehicle",
    "transport-ground": "vehicle",
    "transport-water": "vehicle",
    "heart": "symbol",
    "body-parts": "body part",
    "award-medal": "object",
    "arts-crafts": "object",
    "event": "",
}
"""Where the subgroup says more than its group; "" where it holds all kinds of things."""

_COLOURS = frozenset(("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"))

# fmt: off
_NO_THING = {
    "feather", "wing", "paw prints", "spider web", "microbe", "spiral shell", "empty nest", "nest with eggs", "baby bottle",
    "teapot", "ice", "pouring liquid", "station", "bus stop", "motorway", "railway track", "oil drum", "fuel pump", "wheel",
    "police car light", "horizontal traffic light", "vertical traffic light", "stop sign", "construction", "anchor",
    "ring buoy", "parachute", "seat", "brick", "rock", "wood", "wedding", "foggy", "compass", "barber pole", "love letter",
    "mechanical arm", "mechanical leg", "manual wheelchair", "motorized wheelchair", "skateboard", "roller skate",
    "phoenix", "dragon", "dragon face", "unicorn", "globe with meridians", "world map", "map of Japan", "teddy bear",
    "carousel horse", "playground slide", "potted plant", "coral",
}
"""Emoji whose group would be a wrong answer to what kind of thing they show."""
_RENAMED = {
    **{f"{colour} {size} square": f"{colour} square" for colour in ("black", "white")
       for size in ("large", "medium", "medium-small", "small")},
    **{f"{size} {colour} diamond": f"{colour} diamond" for colour in ("orange", "blue") for size in ("large", "small")},
    "sun behind small cloud": "sun behind cloud", "sun behind large cloud": "sun behind cloud",
    "hourglass done": "hourglass", "hourglass not done": "hourglass",
    "heavy equals sign": "equals sign", "snow-capped mountain": "snowy mountain",
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Name:
    """One emoji.

    Attributes:
        code: code points in lower-case hexadecimal, joined by "-", without the variation selector.
        label: the answer to "What is this?".
        thing: one of `THINGS`, "" where none of them fits.
        group: number of the Unicode group, the pool of wrong answers.
        tags: words that people look for it by.
        chinese: its Chinese name, "" where it is not written in Chinese characters alone.
    """

    code: str
    label: str
    thing: str
    group: int
    tags: tuple[str, ...]
    chinese: str

    @property
    def words(self) -> frozenset[str]:
        """Words of the label in lower case."""
        return frozenset(re.findall(r"[^\W_]+", self.label.lower()))

    @property
    def colours(self) -> frozenset[str]:
        """Colours that the label names; a grey or black drawing could not be told from its neighbours."""
        return self.words & _COLOURS

    def may_be(self, other: Name) -> bool:
        """Say whether the other name could be true of this picture: a duck is a bird, a dog's face a dog."""
        if self.words & other.words - _COLOURS or self.label == other.label:
            return True
        return any(
            tag in (name.label, *name.words) for name, tags in ((self, other.tags), (other, self.tags)) for tag in tags
        )


def code_of(hexcode: str) -> str:
    """Return the code points as icon sets write them: lower case, without the variation selector."""
    return hexcode.lower().replace("-fe0f", "")


def letters(text: str) -> str:
    """Return the letters and digits of a name: "Soccer ball" and "soccer-ball" are one name."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _plain(label: str) -> str:
    """Return a label in plain words, "" if it is left out."""
    if label.startswith(("keycap", "input ", "Japanese “")):
        return ""
    label = label.replace("’", "'").removesuffix(" (blood type)")
    return _RENAMED.get(label, label)


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@lru_cache(maxsize=2)
def names(folder: Path) -> Mapping[str, Name]:
    """Return the names in use by code, in Unicode's order.

    Args:
        folder: unpacked `emojibase-data`.
    """
    subgroups = {row["order"]: row["key"] for row in _read(folder, "en/messages.json")["subgroups"]}
    chinese = {row["hexcode"]: row["label"] for row in _read(folder, "zh/data.json")}
    found = {}
    for row in sorted(_read(folder, "en/data.json"), key=lambda row: int(row.get("order", 0))):
        group, subgroup = row.get("group", -1), subgroups.get(row.get("subgroup"), "")
        label = _plain(row["label"])
        if not label or (group not in _GROUPS and subgroup not in ("heart", "body-parts")):
            continue
        thing = "" if label in _NO_THING else _SUBGROUPS.get(subgroup, _GROUPS.get(group, ""))
        local = chinese.get(row["hexcode"], "")
        found[code_of(row["hexcode"])] = Name(
            code=code_of(row["hexcode"]),
            label=label,
            thing=thing,
            group=group,
            tags=tuple(tag for tag in row.get("tags", ()) if tag.isascii() and tag != label),
            chinese=local if re.fullmatch(r"[\u4e00-\u9fff]+", local) and label == row["label"] else "",
        )
    return found


@lru_cache(maxsize=2)
def _spellings(folder: Path) -> dict[str, set[str]]:
    """Letters of a label, Unicode name or shortcode -> codes of the emoji that are called so."""
    unicode_names = {code_of(code): name for code, name in _read(folder, "meta/unicode-names.json").items()}
    shortcodes = [_read(path.parent, path.name) for path in sorted((folder / "en" / "shortcodes").glob("*.json"))]
    exact: dict[str, set[str]] = defaultdict(set)
    loose: dict[str, set[str]] = defaultdict(set)
    for row in _read(folder, "en/data.json"):
        code = code_of(row["hexcode"])
        exact[letters(row["label"])].add(code)
        loose[letters(unicode_names.get(code, ""))].add(code)
        loose[letters(_plain(row["label"]))].add(code)
        for table in shortcodes:
            given = table.get(row["hexcode"], ())
            for shortcode in (given,) if isinstance(given, str) else given:
                loose[letters(shortcode)].add(code)
    return {**loose, **exact}


def match_icons(folder: Path, style: str, icons: Iterable[str]) -> dict[str, str]:
    """Match the icons of a set that carries no code points.

    Args:
        folder: unpacked `emojibase-data`.
        style: name of the set, for its own table of icons.
        icons: their names; earlier ones win where two are the same emoji.

    Returns:
        Code -> icon, for emoji in use only.
    """
    known, spellings, own = names(folder), _spellings(folder), ICONS.get(style, {})
    by_label = {name.label: code for code, name in reversed(list(known.items()))}
    found: dict[str, str] = {}
    for icon in icons:
        if icon in own:
            codes = {by_label[own[icon]]} if own[icon] in by_label else set()
        else:
            codes = spellings.get(letters(icon), set())
        if len(codes) == 1 and (code := next(iter(codes))) in known:
            found.setdefault(code, icon)
    return found
