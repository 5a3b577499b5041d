"""``vedere compose "TITLE" --gallery DIR -o article.html``: an illustrated article from a title.

Beside the article lie ``NAME.journal.jsonl``, every question with its answer as it came, and ``NAME.draft.json``, the article
with every decision after each step. The same command again asks nothing that stands in the journal: a run that was stopped goes
on, and an article can be written in another format at no cost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vedere.cli.cast import CastOptions, cast_of, check_cast
from vedere.cli.gallery import GalleryOptions, facts, opened
from vedere.cli.output import note, print_json
from vedere.compose.cast import Cast, language_of
from vedere.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from vedere.compose.article import Picture
    from vedere.compose.journal import Journal
    from vedere.compose.steps import Draft, Gallery

FORMATS = (".html", ".md", ".docx", ".json")
_MOST_OWN = 10  # as in the published demo


@dataclass(frozen=True, kw_only=True)
class ComposeOptions(CastOptions, GalleryOptions):
    """Write an illustrated article."""

    title: Annotated[str, tyro.conf.Positional]
    """Title."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """File to write: .html (pictures inside), .md (pictures beside it), .docx or .json."""
    gallery: Path | None = None
    """Pictures to choose from: a folder, a .jsonl file that names some, or a .tar or .parquet data set."""
    own: tuple[Path, ...] = ()
    """Instead of a gallery: up to 10 pictures, each of which may stand in the article once."""
    outline: str = ""
    """What the article should say; @FILE reads it from a file."""
    requirements: str = ""
    """Any other instruction: style, length, readers; @FILE reads it from a file."""
    reference: tuple[Path, ...] = ()
    """Text files that the article should build on."""
    pictures: int | None = None
    """Number of pictures; by default the model decides."""
    language: Literal["en", "zh"] | None = None
    """Language of questions and page; by default that of the title."""
    select: Literal["model", "retrieval"] | None = None
    """Who chooses among the candidates; retrieval takes the first one, as is done by default where the model cannot choose."""
    places: Literal["model", "text"] | None = None
    """Who says where pictures belong and what they show; text searches for the paragraphs themselves, as is done by default
    where the model cannot."""
    fresh: bool = False
    """Forget the journal of an earlier run."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: list[str]) -> int:
    """Runs ``vedere compose``."""
    options = tyro.cli(ComposeOptions, args=argv, prog="vedere compose", config=(tyro.conf.FlagCreatePairsOff,))
    return compose(options)


def compose(options: ComposeOptions) -> int:
    """Writes an article, step by step; what is done is kept."""
    from vedere.compose.prompts import Brief
    from vedere.compose.steps import Draft

    begun = time.perf_counter()
    check(options)
    brief = Brief(
        title=options.title,
        outline=_text(options.outline, "--outline"),
        requirements=_text(options.requirements, "--requirements"),
        material="\n\n".join(_read(path, "--reference") for path in options.reference),
        pictures=own_pictures(options),
    )
    gallery, report = gallery_of(options, brief.pictures)
    cast = cast_of(options, options.language or language_of(options.title))
    journal = journal_of(options, cast)
    draft = followed(options, replace(cast, model=journal), gallery, Draft.of(brief))
    write(options, draft)
    summary = summary_of(options, draft, journal) | {
        "gallery": report,
        "stale": dict(getattr(gallery, "stale", {})),
        "seconds": round(time.perf_counter() - begun, 3),
    }
    if options.json:
        print_json(summary)
        return 0
    for name, reason in summary["stale"].items():
        note(f"{name} {reason}; it was passed over: run the command again")
    print(f"{options.out}: {summary['paragraphs']} paragraphs, {len(summary['pictures'])} pictures")
    for picture in summary["pictures"]:
        print(
            f"  after paragraph {picture['paragraph'] + 1}: {picture['id']} ({picture['chosen_by']}): {picture['caption']}"
        )
    for text in summary["notes"]:
        print(f"  note: {text}")
    print(f"every question and answer: {summary['journal']}")
    return 0


def check(options: ComposeOptions) -> None:
    """Refuses what cannot end well, before anything is loaded or asked."""
    suffix = options.out.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"-o {options.out}: no format '{suffix}'; expected a file that ends in {', '.join(FORMATS)}")
    if suffix == ".docx":
        from vedere.compose.export import load_docx

        load_docx()
    if options.gallery is not None and options.own:
        raise ConfigError("--gallery and --own were both given; choose from one of them")
    if options.pictures is not None and options.pictures < 0:
        raise ConfigError(f"--pictures {options.pictures}; expected 0 or more")
    if options.pictures and options.gallery is None and not options.own:
        raise ConfigError(f"--pictures {options.pictures} without --gallery or --own; say where they are")
    check_cast(options)


def _text(given: str, option: str) -> str:
    return _read(Path(given[1:]), option) if given.startswith("@") else given


def _read(path: Path, option: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigError(f"{option}: {path} cannot be read ({reason})") from None


def own_pictures(options: ComposeOptions) -> tuple[Picture, ...]:
    """The user's own pictures, all of them readable."""
    from PIL import Image

    from vedere.compose.article import Picture
    from vedere.compose.sidecars import Words, inside
    from vedere.vision.pixels import open_image

    if len(options.own) > _MOST_OWN:
        raise ConfigError(
            f"--own names {len(options.own)} pictures; expected at most {_MOST_OWN}: make a --gallery of them"
        )
    found = []
    for number, path in enumerate(options.own, 1):
        open_image(path)
        with Image.open(path) as image:
            words = inside(image).or_else(Words(attribution=options.attribution, licence=options.licence))
        caption = words.captions[0] if words.captions else ""
        found.append(
            Picture(
                id=f"own-{number}",
                path=str(path.resolve()),
                caption=caption,
                attribution=words.attribution,
                licence=words.licence,
            )
        )
    return tuple(found)


def gallery_of(options: ComposeOptions, own: Sequence[Picture]) -> tuple[Gallery, dict[str, Any] | None]:
    """Where pictures come from, and what bringing the index up to date found."""
    from vedere.compose.steps import OwnPictures

    if options.gallery is None:
        return OwnPictures(tuple(own)), None
    gallery, report = opened(options.gallery, options)
    return gallery, facts(report)


def journal_of(options: ComposeOptions, cast: Cast) -> Journal:
    """The journal beside the article."""
    from vedere.compose.journal import Journal

    path = options.out.with_name(f"{options.out.stem}.journal.jsonl")
    if options.fresh:
        path.unlink(missing_ok=True)
    return Journal(cast.model, path, cast.identity)


def followed(options: ComposeOptions, cast: Cast, gallery: Gallery, draft: Draft) -> Draft:
    """Runs the steps, says each one, and saves the draft after it."""
    from vedere.compose.article import write_text
    from vedere.compose.matching import steps_for
    from vedere.compose.steps import watch
    from vedere.config import to_dict

    have = options.gallery is not None or bool(draft.brief.pictures)
    sees = cast.sees if options.select is None else options.select == "model"
    places = cast.places if options.places is None else options.places == "model"
    if have and not sees and options.select is None:
        note(
            "this model cannot choose among pictures: the first one found is taken (--select model asks it all the same)"
        )
    if have and not places and options.places is None:
        note("this model cannot place pictures: the text itself is searched for (--places model asks it all the same)")
    number = options.pictures if have else 0
    steps = steps_for(cast.model, gallery, cast.style, number=number, sees=sees, places=places)
    place = options.out.with_name(f"{options.out.stem}.draft.json")
    step = ""
    try:
        for name, made in watch(steps, draft):
            if name != step:
                note(f"{name} ...")
                step = name
                write_text(place, json.dumps(to_dict(draft), ensure_ascii=False, indent=1))
            draft = made
    finally:
        write_text(place, json.dumps(to_dict(draft), ensure_ascii=False, indent=1))
    return draft


def write(options: ComposeOptions, draft: Draft) -> None:
    """Writes the article in the format of its name."""
    from vedere.compose.export import save_docx, save_json, save_markdown, save_page

    suffix = options.out.suffix.lower()
    try:
        if suffix == ".html":
            save_page(draft.article, options.out, options.language or "")
        elif suffix == ".md":
            save_markdown(draft.article, options.out.parent, options.out.stem)
        elif suffix == ".docx":
            save_docx(draft.article, options.out)
        else:
            save_json(draft.article, options.out)
    except MediaError as error:
        raise MediaError(f"{error}; the article itself is kept in {options.out.stem}.draft.json") from None


def summary_of(options: ComposeOptions, draft: Draft, journal: Journal) -> dict[str, Any]:
    """What came out, as plain data."""
    from vedere.compose.export import credit

    pictures, empty = [], []
    for place, spot in draft.article.spots():
        if spot.picture is None:
            empty.append({"paragraph": place, "caption": spot.caption, "note": spot.note})
            continue
        pictures.append(
            {
                "paragraph": place,
                "id": spot.picture.id,
                "path": spot.picture.path,
                "caption": spot.caption,
                "chosen_by": spot.chosen_by,
                "candidates": [picture.id for picture in spot.candidates],
                "credit": credit(spot.picture),
            }
        )
    return {
        "out": str(options.out),
        "title": draft.article.title,
        "paragraphs": len(draft.article.paragraphs),
        "pictures": pictures,
        "empty": empty,
        "notes": [event.note for event in draft.log if event.note],
        "journal": str(journal.path),
        "asked": journal.asked,
        "replayed": journal.replayed,
    }
