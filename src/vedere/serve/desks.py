"""Every visitor's desk: found again by the token of a browser tab, after a reload, and after the server began anew."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from weakref import WeakKeyDictionary

from vedere.compose.article import State
from vedere.errors import VedereError
from vedere.serve.desk import Desk, Studio

MOST_DESKS = 500


class Desks:
    """Desks by token; the least used are given up.

    Args:
        studio: What all visitors share.
        folder: Where articles are kept, each under the hash of its token, so that who reads the folder can open no desk.
    """

    def __init__(self, studio: Studio, folder: Path | str) -> None:
        self.studio, self.folder = studio, Path(folder)
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._kept: WeakKeyDictionary[Desk, tuple[Path, State | None, int]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def at(self, token: str) -> Desk:
        """The desk of a token: the one that is there, the kept one, or a new one."""
        with self._lock:
            desk = self._desks.get(token) or self._opened(token)
            self._desks[token] = desk
            self._desks.move_to_end(token)
            while len(self._desks) > MOST_DESKS:
                self._desks.popitem(last=False)
        return desk

    def _opened(self, token: str) -> Desk:
        desk, path = Desk(self.studio), self.folder / f"{hashlib.sha256(token.encode()).hexdigest()}.json"
        if path.is_file():
            try:
                desk.open(path)
            except VedereError as error:
                print(f"vedere: a kept article was passed over: {error}", file=sys.stderr)
        self._kept[desk] = (path, *_mark(desk))
        return desk

    def keep(self, desk: Desk) -> None:
        """Writes the article of a desk if it has changed.

        Raises:
            CheckpointError: the disk is full or cannot be written; the article goes on in memory.
        """
        kept = self._kept.get(desk)
        if kept is not None and desk.document is not None and not desk.running and kept[1:] != _mark(desk):
            desk.document.save(kept[0])
            self._kept[desk] = (kept[0], *_mark(desk))


def _mark(desk: Desk) -> tuple[State | None, int]:
    """Tells two states of a document apart: the newest state, and which one is in force."""
    return (None, 0) if desk.document is None else (desk.document.states[-1], desk.document.at)
