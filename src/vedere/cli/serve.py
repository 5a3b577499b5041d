"""``vedere serve compose``: the web page for composing articles, reached from this computer only unless told otherwise."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vedere.cli.cast import CastOptions, cast_of, check_cast
from vedere.cli.gallery import GalleryOptions, opened
from vedere.cli.output import note
from vedere.config import nearest
from vedere.errors import ConfigError

PAGES = ("compose",)


@dataclass(frozen=True, kw_only=True)
class ServeComposeOptions(CastOptions, GalleryOptions):
    """Compose illustrated articles in a browser."""

    gallery: Path | None = None
    """A folder, .jsonl file, or .tar or .parquet data set of pictures; without one, visitors bring their own."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this computer only. There is no password."""
    port: int = 7860
    """Port; 0: any free one."""
    language: Literal["en", "zh"] = "en"
    """What the page speaks at first; visitors can change it."""
    files: Path | None = None
    """Folder for visitors' articles and pictures; by default a temporary one that goes when the server ends."""


def main(argv: list[str]) -> int:
    """Runs ``vedere serve``."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vedere serve PAGE ...     (vedere serve PAGE --help says more)\n")
        print(f"  compose  {ServeComposeOptions.__doc__}")
        return 0 if argv else 2
    page, *rest = argv
    if page not in PAGES:
        raise ConfigError(f"no page '{page}'{nearest(page, PAGES)} (pages: {', '.join(PAGES)})")
    options = tyro.cli(
        ServeComposeOptions, args=rest, prog="vedere serve compose", config=(tyro.conf.FlagCreatePairsOff,)
    )
    return compose(options)


def compose(options: ServeComposeOptions) -> int:
    """Opens model and gallery, then serves until Ctrl-C."""
    from vedere.serve.compose_layout import needs_gradio
    from vedere.serve.desk import Studio
    from vedere.serve.one_at_a_time import OneAtATime
    from vedere.serve.shelf import Shelf
    from vedere.serve.site import compose_site, listening, serve

    needs_gradio()
    check_cast(options)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(options.host, options.port))  # before minutes of loading
        files = options.files or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vedere-compose-")))
        gallery = None if options.gallery is None else opened(options.gallery, options)[0]
        cast = cast_of(options, options.language)
        if not cast.sees:
            note("this model cannot choose among pictures: the first one that is found is taken")
        if not cast.places:
            note("nor can it say where pictures belong and what they show: the text itself is searched for")
        remote = bool(options.endpoint) and options.model is None
        studio = Studio(
            model=cast.model if remote else OneAtATime(cast.model),
            style=cast.style,
            gallery=gallery,
            shelf=Shelf(files / "uploads", [] if gallery is None else gallery.folders),
            sees=cast.sees,
            places=cast.places,
        )
        serve(compose_site(studio, files, options.language), listener)
    return 0
