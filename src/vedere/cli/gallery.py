"""``vedere gallery index | search DIR``: pictures of a folder or data set, searched by caption."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.group import Commands, run_group
from vedere.cli.output import note, print_json
from vedere.cli.progress import progress_of
from vedere.errors import ConfigError

if TYPE_CHECKING:
    from vedere.compose.gallery import FolderGallery, IndexReport

_LISTED = 20  # unusable pictures that are named


@dataclass(frozen=True, kw_only=True)
class GalleryOptions:
    """Where a gallery is and how it is searched."""

    encoder: str = "multilingual"
    """multilingual (16 languages), minilm (English), or the folder of a sentence-transformers, CLIP or SigLIP model."""
    captions: Path | None = None
    """List of captions (.jsonl, .csv, .txt); by default captions.* or metadata.* beside the pictures."""
    index: Path | None = None
    """Folder of the index; by default in vedere's cache."""
    similarity: float | None = None
    """Least similarity of a picture that is found; by default the encoder's own."""
    attribution: str = ""
    """Who has to be named for pictures of which nobody says it."""
    licence: str = ""
    """Licence of pictures of which nobody says it."""


@dataclass(frozen=True, kw_only=True)
class IndexOptions(GalleryOptions):
    """Bring the index of a gallery up to date: new, changed and removed pictures."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of pictures, searched in depth, a .jsonl file that names some, or a .tar or .parquet data set of pictures."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(GalleryOptions):
    """Find pictures of a gallery by a caption, after bringing its index up to date."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of pictures, searched in depth, a .jsonl file that names some, or a .tar or .parquet data set of pictures."""
    query: Annotated[str, tyro.conf.Positional]
    """What the picture should show."""
    count: int = 4
    """Most pictures."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: list[str]) -> int:
    """Runs ``vedere gallery``."""
    commands: Commands = {"index": (IndexOptions, index), "search": (SearchOptions, search)}
    return run_group("gallery", commands, argv)


def opened(folder: Path, options: GalleryOptions) -> tuple[FolderGallery, IndexReport]:
    """A gallery whose index is up to date, and what the update found; unusable pictures are named on standard error."""
    from vedere.compose.gallery import GalleryConfig, open_gallery

    config = GalleryConfig(
        captions=options.captions,
        similarity=options.similarity,
        attribution=options.attribution,
        licence=options.licence,
    )
    gallery = open_gallery(folder, encoder=options.encoder, index=options.index, config=config, say=note)
    with progress_of("pictures") as progress:
        report = gallery.update(progress)
    for name, reason in report.unusable[:_LISTED]:
        note(f"not used: {name}: {reason}")
    if len(report.unusable) > _LISTED:
        note(f"... and {len(report.unusable) - _LISTED} more")
    if report.wordless:
        note(
            f"{report.wordless} pictures cannot be found: no caption, tags or telling name; write captions.jsonl (vedere data "
            "recaption makes some), or take an encoder that sees"
        )
    if report.unmatched:
        note(f"{gallery.captions}: {report.unmatched} of its names are no file of the gallery")
    if report.pictures == len(report.unusable) + report.wordless:
        note(f"none of the {report.pictures} pictures of {folder} can be found")
    return gallery, report


def facts(report: IndexReport) -> dict[str, Any]:
    """The report as plain data."""
    return vars(report) | {"unusable": [list(entry) for entry in report.unusable]}


def index(options: IndexOptions) -> int:
    """Brings an index up to date."""
    begun = time.perf_counter()
    gallery, report = opened(options.folder, options)
    if options.json:
        print_json(
            facts(report)
            | {
                "index": str(gallery.index),
                "encoder": gallery.encoder.name,
                "seconds": round(time.perf_counter() - begun, 3),
            }
        )
        return 0
    print(
        f"{report.pictures} pictures: {report.new} new, {report.changed} changed, {report.removed} removed, "
        f"{len(report.unusable)} unusable, {report.wordless} without words"
    )
    return 0


def search(options: SearchOptions) -> int:
    """Searches."""
    if not options.query.strip():
        raise ConfigError("an empty query; say what the picture should show")
    if options.count < 1:
        raise ConfigError(f"--count {options.count}; expected 1 or more")
    gallery, report = opened(options.folder, options)
    begun = time.perf_counter()
    hits = gallery.ranked(options.query, options.count)
    seconds = time.perf_counter() - begun
    if options.json:
        found = [vars(hit.picture) | {"similarity": round(hit.similarity, 4), "tags": hit.tags} for hit in hits]
        print_json(
            {"query": options.query, "hits": found, "stale": gallery.stale, "seconds": round(seconds, 4)}
            | {"gallery": facts(report)}
        )
        return 0
    for hit in hits:
        print(f"{hit.similarity:.3f}  {hit.picture.id}  {hit.picture.caption}")
    if not hits:
        print("no picture is similar enough (--similarity lowers the bar)")
    return 0
