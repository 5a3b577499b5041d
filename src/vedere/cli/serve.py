"""``vedere serve compose``: the web page for composing articles, on this computer unless told otherwise."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vedere.config import nearest
from vedere.errors import ConfigError

PAGES = ("compose",)


@dataclass(frozen=True, kw_only=True)
class ServeComposeOptions:
    """Compose illustrated articles in a browser."""

    script: Path | None = None
    """Answers of a scripted model (JSON: step -> answers) instead of a model."""
    gallery: Path | None = None
    """Folder of pictures, or a .jsonl file that names some; without one, visitors bring their own."""
    encoder: str = "multilingual"
    """What captions are compared with: multilingual, minilm, or the folder of a sentence encoder."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this computer only."""
    port: int = 7860
    """Port; 0: any free one."""
    language: Literal["en", "zh"] = "en"
    """What the page speaks at first."""
    files: Path | None = None
    """Folder for visitors' pictures and downloads; by default a temporary one that goes when the server ends."""


def main(argv: list[str]) -> int:
    """Runs ``vedere serve``."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: vedere serve PAGE ...     pages: {', '.join(PAGES)}     (vedere serve PAGE --help says more)")
        return 0
    page, *rest = argv
    if page not in PAGES:
        raise ConfigError(f"no page '{page}'{nearest(page, PAGES)} (pages: {', '.join(PAGES)})")
    options = tyro.cli(ServeComposeOptions, args=rest, prog="vedere serve compose")
    with tempfile.TemporaryDirectory(prefix="vedere-compose-") as temporary:
        return _compose(options, options.files or Path(temporary))


def _compose(options: ServeComposeOptions, files: Path) -> int:
    from vedere.compose.prompts import SECOND
    from vedere.compose.scripted import ScriptedModel
    from vedere.serve.compose_layout import needs_gradio
    from vedere.serve.desk import Studio
    from vedere.serve.shelf import Shelf
    from vedere.serve.site import compose_site, serve

    needs_gradio()
    if options.script is None:
        raise ConfigError("no model; give --script FILE")
    model = ScriptedModel.load(options.script)
    gallery, folders = None, []
    if options.gallery is not None:
        from vedere.compose.gallery import open_gallery

        gallery = open_gallery(options.gallery, encoder=options.encoder)
        gallery.update()
        folders = [gallery.folder]
    studio = Studio(model=model, style=SECOND, gallery=gallery, shelf=Shelf(files / "uploads", folders))
    serve(compose_site(studio, files / "downloads", options.language), options.host, options.port)
    return 0
