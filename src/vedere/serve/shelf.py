"""The pictures that a page may show, under keys that nobody can guess, and the pictures that visitors bring.

A browser never names a file. It gets a key for every picture that stood in its article or among its candidates; a key is the
keyed hash of a path (HMAC-SHA256, one secret a process), so no other file can be asked for. What goes out was decoded and
encoded again, so a picture cannot carry a script, and is as small as it is shown. What comes in is decoded before it is kept.
An article that is opened from a file may name any path: pictures outside the folders of this shelf are left out of it.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vedere.compose.article import Article, Document, Illustration, Picture, State
from vedere.errors import MediaError
from vedere.vision.pixels import open_image

WIDTHS = (320, 1280)  # pixels: of a candidate, of a figure
_KEPT_BYTES = 64 << 20


class Shelf:
    """Pictures by key.

    Attributes:
        uploads: Folder of the visitors' pictures.
        folders: Every folder whose pictures may be shown.
    """

    def __init__(self, uploads: Path | str, folders: Sequence[Path | str] = ()) -> None:
        self.uploads = Path(uploads)
        self.folders = tuple(Path(folder).resolve() for folder in (uploads, *folders))
        self._secret = secrets.token_bytes(32)
        self._paths: dict[str, str] = {}
        self._ready: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def key(self, picture: Picture) -> str:
        """The key of a picture; from now on `image` gives it out."""
        key = hmac.new(self._secret, picture.path.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:40]
        self._paths[key] = picture.path
        return key

    def image(self, key: str, width: int) -> bytes | None:
        """A picture as JPEG, at most so wide; None: no such key.

        Raises:
            MediaError: its file cannot be read.
        """
        path = self._paths.get(key)
        if path is None:
            return None
        width = min((one for one in WIDTHS if one >= width), default=WIDTHS[-1])
        with self._lock:
            if (key, width) in self._ready:
                self._ready.move_to_end((key, width))
                return self._ready[key, width]
        image = open_image(path, background=(255, 255, 255))
        image.thumbnail((width, 2 * width))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        data = buffer.getvalue()
        with self._lock:
            self._ready[key, width] = data
            while sum(map(len, self._ready.values())) > _KEPT_BYTES:
                self._ready.popitem(last=False)
        return data

    def keep(self, path: Path | str) -> Picture:
        """Keeps a visitor's picture under the hash of its content; its name is its caption.

        Raises:
            MediaError: it is no picture.
        """
        source = Path(path)
        try:
            open_image(source)
        except MediaError as error:
            raise MediaError(f"'{source.name[:80]}' is no picture that can be used: {error}") from None
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:20]
        suffix = source.suffix.lower() if re.fullmatch(r"\.[a-z0-9]{1,5}", source.suffix.lower()) else ""
        self.uploads.mkdir(parents=True, exist_ok=True)
        target = self.uploads / f"{digest}{suffix}"
        if not target.exists():
            shutil.copyfile(source, target)
        return Picture(id=f"own-{digest}", path=str(target), caption=re.sub(r"[-_\s]+", " ", source.stem).strip()[:200])

    def holds(self, picture: Picture) -> bool:
        """Whether a picture's file is there and lies in one of the folders, links followed."""
        try:
            path = Path(picture.path).resolve()
            return path.is_file() and any(path.is_relative_to(folder) for folder in self.folders)
        except (OSError, ValueError):
            return False

    def admitted(self, document: Document) -> tuple[Document, int]:
        """A document without the pictures that this shelf does not hold, and how many those were; captions stay."""
        left_out: set[str] = set()

        def spot(old: Illustration) -> Illustration:
            kept = tuple(picture for picture in old.candidates if self.holds(picture))
            left_out.update(picture.path for picture in old.candidates if picture not in kept)
            if kept == old.candidates:
                return old
            selected = kept.index(old.picture) if old.picture in kept else None
            note = old.note if selected is not None else "its picture is not on this computer"
            return replace(old, candidates=kept, selected=selected, note=note)

        def article(old: Article) -> Article:
            return replace(
                old,
                paragraphs=tuple(
                    replace(one, illustration=one.illustration and spot(one.illustration)) for one in old.paragraphs
                ),
            )

        states = [State(action=state.action, article=article(state.article)) for state in document.states]
        return Document(states, document.at), len(left_out)
