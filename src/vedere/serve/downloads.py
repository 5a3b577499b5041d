"""Files that were made for a visitor, each under a link that nobody can guess.

An export is made when it is asked for, of the state in force, so an error is words on the page and not a broken download. Links
live as long as the server and only the newest are kept.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vedere.compose.article import Document
from vedere.compose.export import save_docx, save_json, save_markdown, save_page
from vedere.errors import ConfigError
from vedere.serve.desk import Desk

KEPT = 100


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: Name that the visitor's browser gives it.
        media_type: What it is.
        write: Writes it.
    """

    name: str
    media_type: str
    write: Callable[[Document, Path], None]


def _zipped_markdown(document: Document, path: Path) -> None:
    """Markdown with its pictures beside it, as one ZIP archive."""
    with tempfile.TemporaryDirectory() as folder:
        save_markdown(document.article, Path(folder) / "article")
        made = shutil.make_archive(str(Path(folder) / "article"), "zip", folder, "article")
        shutil.copyfile(made, path)


_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
KINDS = {
    "html": Kind("article.html", "text/html", lambda document, path: save_page(document.article, path)),
    "markdown": Kind("article.zip", "application/zip", _zipped_markdown),
    "docx": Kind("article.docx", _WORD, lambda document, path: save_docx(document.article, path)),
    "json": Kind("article.json", "application/json", lambda document, path: save_json(document.article, path)),
    "saved": Kind("article.vedere.json", "application/json", lambda document, path: document.save(path)),
}


class Downloads:
    """Made files by link.

    Attributes:
        folder: Where they lie.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._kinds: OrderedDict[str, Kind] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, kind: Kind, desk: Desk) -> tuple[str, str]:
        """Writes the article of a desk; returns (link, name).

        Raises:
            ConfigError: there is none, or an optional package is missing.
            MediaError: one of its pictures cannot be read.
        """
        if desk.document is None:
            raise ConfigError("there is no article yet; give a title and generate one, or open a saved one")
        key = secrets.token_hex(20)
        self.folder.mkdir(parents=True, exist_ok=True)
        kind.write(desk.document, self.folder / key)
        with self._lock:
            self._kinds[key] = kind
            while len(self._kinds) > KEPT:
                old, _ = self._kinds.popitem(last=False)
                (self.folder / old).unlink(missing_ok=True)
        return f"downloads/{key}", kind.name

    def find(self, key: str) -> tuple[Path, Kind] | None:
        """The file of a link; None: there is none (any more)."""
        kind = self._kinds.get(key)
        return None if kind is None else (self.folder / key, kind)
