"""Open typefaces for rendered text: what Python packages carry, and families that npm packages of Fontsource carry.

Reading is learnt from many typefaces or not at all, so about a hundred families of all styles are used. Each npm package
(`@fontsource/<family>`) holds one family under the SIL Open Font License or the Apache License; its licence field is
checked before a file is used. Regular and bold of the Latin subset are taken. Families are fixed to one version, and a
fixed list of them is held out: no training picture shows them. Without npm or without a network the typefaces of
matplotlib and Pillow remain, with a message.

`NEVER` names families that others test with; they are neither downloaded nor drawn.

Cost: about 40 MB of downloads at the first use (two minutes); afterwards a look at the disk.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from vedere.errors import PackageError
from vedere.packages import fetch_npm, say_on_stderr

Style = Literal["sans", "serif", "slab", "mono", "display", "hand", "condensed", "rounded"]
Use = Literal["train", "heldout"]
Fetch = Callable[[str, str, Callable[[str], None]], Path]

NEVER = ("noto-color-emoji", "comic-neue", "carlito", "quicksand", "inconsolata", "lobster", "lobster-two")
LICENCES = ("OFL-1.1", "Apache-2.0")
VERSION = "5.3.0"
_OTHER_VERSIONS = {"source-serif-4": "5.3.1", "changa-one": "5.2.8"}
_DOWNLOADS = 4

# fmt: off
FAMILIES: dict[Style, tuple[str, ...]] = {
    "sans": (
        "lato", "roboto", "open-sans", "montserrat", "poppins", "raleway", "work-sans", "inter", "rubik", "karla", "cabin",
        "oxygen", "fira-sans", "source-sans-3", "pt-sans", "titillium-web", "exo-2", "mukta", "barlow", "heebo", "dm-sans",
        "libre-franklin", "josefin-sans", "overpass", "catamaran", "arimo", "cantarell", "didact-gothic", "tenor-sans",
        "philosopher", "alegreya-sans", "jura", "play", "ibm-plex-sans", "signika",
    ),
    "serif": (
        "merriweather", "playfair-display", "lora", "pt-serif", "libre-baskerville", "eb-garamond", "crimson-text",
        "cormorant-garamond", "vollkorn", "cardo", "gelasio", "spectral", "domine", "old-standard-tt", "source-serif-4",
        "tinos", "alegreya", "libre-caslon-text",
    ),
    "slab": ("roboto-slab", "arvo", "rokkitt", "zilla-slab", "bitter", "alfa-slab-one", "slabo-27px"),
    "mono": (
        "roboto-mono", "source-code-pro", "fira-mono", "space-mono", "courier-prime", "anonymous-pro", "cousine", "vt323",
        "share-tech-mono", "jetbrains-mono", "overpass-mono", "special-elite",
    ),
    "display": (
        "bebas-neue", "anton", "righteous", "abril-fatface", "bangers", "lilita-one", "luckiest-guy", "press-start-2p",
        "orbitron", "audiowide", "russo-one", "passion-one", "patua-one", "changa-one", "chewy", "creepster", "michroma",
    ),
    "hand": (
        "dancing-script", "caveat", "shadows-into-light", "indie-flower", "satisfy", "kalam", "patrick-hand",
        "architects-daughter", "gloria-hallelujah", "handlee", "courgette", "kaushan-script", "cookie", "pacifico",
        "neucha", "schoolbell", "yellowtail", "marck-script", "itim", "covered-by-your-grace",
    ),
    "condensed": (
        "oswald", "roboto-condensed", "barlow-condensed", "pt-sans-narrow", "archivo-narrow", "fjalla-one",
        "yanone-kaffeesatz", "saira-condensed", "league-gothic",
    ),
    "rounded": (
        "nunito", "varela-round", "comfortaa", "baloo-2", "sniglet", "fredoka", "dosis", "balsamiq-sans",
        "m-plus-rounded-1c",
    ),
}
HELDOUT = (
    "cabin", "dm-sans", "open-sans", "titillium-web",
    "lora", "spectral", "zilla-slab",
    "roboto-mono", "courier-prime",
    "righteous", "courgette", "patrick-hand", "neucha",
    "archivo-narrow", "fredoka", "stix",
)
CAPITALS_ONLY = ("bebas-neue", "bangers", "luckiest-guy", "creepster", "covered-by-your-grace")
_LOCAL: tuple[tuple[str, Style, tuple[str, ...]], ...] = (
    ("dejavu-sans", "sans", ("DejaVuSans", "DejaVuSans-Bold")),
    ("dejavu-sans-mono", "mono", ("DejaVuSansMono", "DejaVuSansMono-Bold")),
    ("dejavu-serif", "serif", ("DejaVuSerif", "DejaVuSerif-Bold")),
    ("stix", "serif", ("STIXGeneral", "STIXGeneralBol")),
    ("computer-modern-sans", "sans", ("cmss10",)),
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Typeface:
    """One font file.

    Attributes:
        family: name of the family, as Fontsource writes it.
        style: what it looks like.
        path: the file; "" is the font that Pillow carries.
        capitals: whether its small letters look like capitals, so that only capitals can be read off it.
    """

    family: str
    style: Style
    path: str
    capitals: bool = False


def package_of(family: str) -> tuple[str, str]:
    """Return the npm package of a family and its version."""
    return f"@fontsource/{family}", _OTHER_VERSIONS.get(family, VERSION)


def local_typefaces() -> tuple[Typeface, ...]:
    """Return what Pillow and, where it is installed, matplotlib carry; matplotlib is located, not imported."""
    found = [Typeface(family="pillow", style="sans", path="")]
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        for family, style, files in _LOCAL:
            paths = [folder / f"{file}.ttf" for file in files]
            found += [Typeface(family=family, style=style, path=str(path)) for path in paths if path.is_file()]
    return tuple(found)


def read_package(family: str, style: Style, folder: Path) -> tuple[Typeface, ...]:
    """Return regular and bold of an unpacked package.

    Raises:
        PackageError: the licence is not one of `LICENCES`, or the package has no regular Latin file.
    """
    licence = json.loads((folder / "package.json").read_text("utf-8")).get("license")
    if licence not in LICENCES:
        raise PackageError(
            f"typeface '{family}' has the licence '{licence}'; expected {' or '.join(LICENCES)}; take it off the list"
        )
    names = [f"{family}-latin-{weight}-normal.woff2" for weight in (400, 700)]
    paths = [folder / "files" / name for name in names if (folder / "files" / name).is_file()]
    if not paths:
        raise PackageError(f"the package of typeface '{family}' has no files/{names[0]}; use another version of it")
    capitals = family in CAPITALS_ONLY
    return tuple(Typeface(family=family, style=style, path=str(path), capitals=capitals) for path in paths)


def fetch_typefaces(fetch: Fetch = fetch_npm, say: Callable[[str], None] = say_on_stderr) -> tuple[Typeface, ...]:
    """Return all typefaces: the local ones, then those of the packages, downloaded where they are missing.

    Args:
        fetch: gets one package; replaced in tests.
        say: receives one line if the packages cannot be had.

    Raises:
        PackageError: a package is there but its licence or its files are not what they should be.
    """
    wanted = [(family, style) for style, families in FAMILIES.items() for family in families]
    found: list[Typeface] = []
    try:
        first = fetch(*package_of(wanted[0][0]), say)  # alone: without a network one attempt is enough
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            rest = list(pool.map(lambda family: fetch(*package_of(family), say), [name for name, _ in wanted[1:]]))
    except PackageError as error:
        say(f"typefaces of npm packages cannot be had ({error}); text is drawn in the few local ones")
        return local_typefaces()
    for (family, style), folder in zip(wanted, [first, *rest], strict=True):
        found += read_package(family, style, folder)
    return (*local_typefaces(), *found)


@lru_cache(maxsize=1)
def all_typefaces() -> tuple[Typeface, ...]:
    """Return all typefaces, downloaded at the first call of a process."""
    return fetch_typefaces()


def ready() -> None:
    """Fetch what is missing before several processes would; without a network nothing is wrong with the few local ones."""
    all_typefaces()


def typefaces(use: Use) -> tuple[Typeface, ...]:
    """Return the typefaces of a split, never empty.

    Held out are the families of `HELDOUT`; if none of them is there (no packages, no matplotlib), all there are.
    """
    everything = all_typefaces()
    kept = tuple(face for face in everything if (face.family in HELDOUT) == (use == "heldout"))
    return kept or everything
