"""Drawings of emoji in eight styles: icon sets of npm, rendered at the size, place and turn that a picture needs.

One whole style is held out: FxEmoji. Its artists (Mozilla) share no drawing with another set, while the two EmojiOne sets
and the three of Fluent are revisions of each other, so that holding out one of those would test on drawings that are half
known. It is also the set with the fewest names, so training loses least.

The SVG bodies are rendered by `resvg` (extra `corpus`) each time they are used. Turning, mirroring and scaling happen in
the SVG, so edges stay sharp and nothing is resampled twice. Bitmaps kept on disk would be read ten times faster, but would
have to be turned and scaled as bitmaps; at the sizes of the corpus it is a matter of minutes.

Cost: a download at the first use (200 MB on disk, half of it one style), 1 s to read the sets; 2 ms a drawing of 160 px, 18 ms
in the one style that is full of gradients.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from vedere.data.build.emoji_names import code_of, match_icons, names
from vedere.errors import ConfigError, MediaError
from vedere.packages import fetch_npm

EMOJIBASE = ("emojibase-data", "17.0.0")
"""Package and version of the names."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """A set of icons.

    Attributes:
        name: its entry in the ledger, and the last part of its package's name.
        version: of the package `@iconify-json/<name>`.
        licence: SPDX name.
        attribution: who has to be named.
        codes_of: the set whose table of code points holds for this one too, "" for its own.
        ink: whether it has one colour only, which the picture chooses.
        heldout: whether it is never trained.
    """

    name: str
    version: str
    licence: str
    attribution: str
    codes_of: str = ""
    ink: bool = False
    heldout: bool = False

    @property
    def package(self) -> str:
        """Name of the npm package."""
        return f"@iconify-json/{self.name}"


_FLUENT = "Fluent Emoji (Microsoft Corporation)"
STYLES: tuple[Style, ...] = (
    Style(
        name="openmoji",
        version="1.2.29",
        licence="CC-BY-SA-4.0",
        attribution="OpenMoji (HfG Schwäbisch Gmünd and contributors)",
    ),
    Style(
        name="twemoji",
        version="1.2.5",
        licence="CC-BY-4.0",
        attribution="Twemoji (Twitter, Inc. and other contributors)",
    ),
    Style(name="fluent-emoji-flat", version="1.2.6", licence="MIT", attribution=_FLUENT),
    Style(name="fluent-emoji", version="1.2.7", licence="MIT", attribution=_FLUENT, codes_of="fluent-emoji-flat"),
    Style(name="fluent-emoji-high-contrast", version="1.2.6", licence="MIT", attribution=_FLUENT, ink=True),
    Style(name="emojione-v1", version="1.2.3", licence="CC-BY-SA-4.0", attribution="EmojiOne 1 (Ranks.com, JoyPixels)"),
    Style(name="emojione", version="1.2.3", licence="CC-BY-4.0", attribution="EmojiOne 2 (EmojiOne; EmojiTwo)"),
    Style(name="fxemoji", version="1.2.2", licence="Apache-2.0", attribution="FxEmoji (Mozilla)", heldout=True),
)
"""All styles."""


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One drawing: the inside of its SVG, and the size of its page in the SVG's units."""

    body: str
    width: float
    height: float


_RETRIES = (1.0, 0.98, 0.95)
"""Sizes tried in turn: the renderer's blur fails at a few sizes of a few drawings, and not beside them."""


def emojibase() -> Path:
    """Return the folder with the names, fetched if it is not there."""
    return fetch_npm(*EMOJIBASE)


def renderer() -> Callable[..., Any]:
    """Return the function that renders an SVG.

    Raises:
        ConfigError: the extra `corpus` is not installed.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise ConfigError(
            "drawings of emoji need the package resvg-py, which is not installed; install it with the extra 'corpus': "
            "pip install 'vedere[corpus]'"
        ) from None
    return svg_to_bytes


def ready() -> None:
    """Fetch everything that pictures of emoji need.

    Raises:
        ConfigError: the extra `corpus` is not installed.
        PackageError: a package cannot be had.
    """
    renderer()
    emojibase()
    for style in STYLES:
        _folder(style)


def _folder(style: Style) -> Path:
    return fetch_npm(style.package, style.version)


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@lru_cache(maxsize=2 * len(STYLES))
def _icons(style: Style, folder: Path, codes: Path, base: Path) -> Mapping[str, Icon]:
    """Read a set; `codes` is the folder whose table of code points counts, and `base` has the names."""
    read = _read(folder, "icons.json")
    table = {code_of(code): icon for code, icon in _read(codes, "chars.json").items()}
    found = {}
    for code, icon in (table or match_icons(base, style.name, [*read["icons"], *read.get("aliases", {})])).items():
        name = names(base).get(code)
        if name is None or (style.ink and name.colours):
            continue
        row = read["icons"].get(read.get("aliases", {}).get(icon, {}).get("parent", icon))
        if row is not None:
            width, height = (float(row.get(side, read.get(side, 16))) for side in ("width", "height"))
            found[code] = Icon(body=row["body"], width=width, height=height)
    return found


def icons_of(style: Style) -> Mapping[str, Icon]:
    """Return the drawings of a style by code, those of names in use only; a one-colour style has none that name a colour."""
    source = next((other for other in STYLES if other.name == style.codes_of), style)
    return _icons(style, _folder(style), _folder(source), emojibase())


def render(
    icon: Icon,
    side: int,
    *,
    scale: float = 0.9,
    shift: tuple[float, float] = (0.0, 0.0),
    turn: float = 0.0,
    mirrored: bool = False,
    ink: str = "#141414",
) -> Image.Image:
    """Draw an icon on a transparent square.

    Args:
        icon: what to draw.
        side: pixels a side.
        scale: longer side of its page as a share of the square.
        shift: of its centre, as a share of the square.
        turn: degrees, clockwise.
        mirrored: left and right exchanged.
        ink: colour of a one-colour style.

    Returns:
        RGBA picture, `side` x `side`.

    Raises:
        MediaError: the renderer fails at this size and at slightly smaller ones.
    """
    for smaller in _RETRIES:
        drawn = _drawn(icon, side, scale * smaller, shift, turn, mirrored, ink)
        if drawn is not None:
            return drawn
    raise MediaError(
        f"an icon of {icon.width:g} x {icon.height:g} units cannot be rendered at {side} px: {icon.body[:80]}"
    )


def _drawn(
    icon: Icon, side: int, scale: float, shift: tuple[float, float], turn: float, mirrored: bool, ink: str
) -> Image.Image | None:
    """Draw once; None where the renderer fails."""
    grow = scale * 100 / max(icon.width, icon.height)
    centre = " ".join(f"{50 + 100 * value:.3f}" for value in shift)
    place = f"translate({centre}) rotate({turn:.2f}) scale({-grow if mirrored else grow:.5f} {grow:.5f})"
    place += f" translate({-icon.width / 2:.3f} {-icon.height / 2:.3f})"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="100" '
        f'viewBox="0 0 100 100" color="{ink}"><g transform="{place}">{icon.body}</g></svg>'
    )
    try:
        data = renderer()(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what a panic of the renderer becomes; no subclass of Exception
            raise
        return None
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")
