"""An illustrated article as a value, and a document that remembers every state of it (arXiv 2309.15112, sec. 3.3).

An `Article` never changes: every edit makes a new one, so undo is a list. An illustration stands behind a paragraph and keeps
its caption, the candidates that were shown and who chose, because the next search, a swap and the attribution all need them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vedere.atomic import write_atomically
from vedere.config import from_dict, to_dict
from vedere.errors import ConfigError

VERSION = 1
MOST_PARAGRAPHS = 60  # as the published demo keeps

Chooser = Literal["nobody", "model", "retrieval", "only one", "user"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a gallery, or the user's own.

    Attributes:
        id: Unique in its gallery.
        path: File.
        caption: What it shows, where that is known.
        attribution: Who has to be named.
        licence: Licence of the picture.
        source: Where it came from.
    """

    id: str
    path: str
    caption: str = ""
    attribution: str = ""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Illustration:
    """The place of a picture behind a paragraph.

    Attributes:
        caption: What the picture should show; the query of the search.
        candidates: Pictures that were found, best first.
        selected: Index of the chosen one; None: the place stays empty.
        chosen_by: Who chose.
        note: Why it is as it is, where something went otherwise than planned.
    """

    caption: str = ""
    candidates: tuple[Picture, ...] = ()
    selected: int | None = None
    chosen_by: Chooser = "nobody"
    note: str = ""

    def __post_init__(self) -> None:
        """Checks the choice.

        Raises:
            ConfigError: a choice outside the candidates.
        """
        if self.selected is not None and not 0 <= self.selected < len(self.candidates):
            raise ConfigError(
                f"candidate {self.selected} of {len(self.candidates)} was chosen; expected 0 to {len(self.candidates) - 1}, or "
                "none"
            )

    @property
    def picture(self) -> Picture | None:
        """The chosen picture."""
        return None if self.selected is None else self.candidates[self.selected]


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A paragraph and what stands behind it."""

    text: str
    illustration: Illustration | None = None


@dataclass(frozen=True, kw_only=True)
class Article:
    """Title and paragraphs.

    Attributes:
        title: Title.
        paragraphs: In reading order.
    """

    title: str
    paragraphs: tuple[Paragraph, ...] = ()

    def at(self, place: int) -> Paragraph:
        """The paragraph at a place.

        Raises:
            ConfigError: there is none.
        """
        if not 0 <= place < len(self.paragraphs):
            raise ConfigError(
                f"paragraph {place} of an article of {len(self.paragraphs)}; expected 0 to {len(self.paragraphs) - 1}"
            )
        return self.paragraphs[place]

    def with_title(self, title: str) -> Article:
        """Another title; line breaks become blanks.

        Raises:
            ConfigError: none.
        """
        line = one_line(title)
        if not line:
            raise ConfigError("an article without a title; give it some words")
        return replace(self, title=line)

    def with_text(self, place: int, text: str) -> Article:
        """Another text; line breaks become blanks, and an empty text removes the paragraph."""
        old, line = self.at(place), one_line(text)
        new = (replace(old, text=line),) if line else ()
        return replace(self, paragraphs=(*self.paragraphs[:place], *new, *self.paragraphs[place + 1 :]))

    def with_paragraph(self, place: int, text: str) -> Article:
        """A new paragraph in front of the one at ``place`` (or at the end).

        Raises:
            ConfigError: no such place, or no text.
        """
        if not 0 <= place <= len(self.paragraphs):
            raise ConfigError(
                f"place {place} in an article of {len(self.paragraphs)} paragraphs; expected 0 to the number"
            )
        line = one_line(text)
        if not line:
            raise ConfigError("an empty paragraph was to be inserted; give it some text")
        new = Paragraph(text=line)
        return replace(self, paragraphs=(*self.paragraphs[:place], new, *self.paragraphs[place:]))

    def with_illustration(self, place: int, illustration: Illustration | None) -> Article:
        """Another illustration behind a paragraph, or none."""
        new = replace(self.at(place), illustration=illustration)
        return replace(self, paragraphs=(*self.paragraphs[:place], new, *self.paragraphs[place + 1 :]))

    def spots(self) -> tuple[tuple[int, Illustration], ...]:
        """(paragraph, illustration) in reading order."""
        found = ((place, paragraph.illustration) for place, paragraph in enumerate(self.paragraphs))
        return tuple((place, illustration) for place, illustration in found if illustration is not None)

    def pictures(self) -> tuple[Picture, ...]:
        """The chosen pictures in reading order."""
        return tuple(illustration.picture for _, illustration in self.spots() if illustration.picture is not None)

    def shown(self) -> frozenset[str]:
        """Ids of every picture that was ever a candidate of this article."""
        return frozenset(picture.id for _, spot in self.spots() for picture in spot.candidates)


def one_line(text: str) -> str:
    """A text without line breaks, nor blanks at its ends."""
    return " ".join(text.split("\n")).strip()


def paragraphs_of(text: str) -> tuple[Paragraph, ...]:
    """The paragraphs of a written text: one a line, blank lines dropped, at most 60 as in the published demo."""
    lines = [line.strip() for line in text.split("\n")]
    return tuple(Paragraph(text=line) for line in lines if line)[:MOST_PARAGRAPHS]


def write_text(path: Path | str, text: str) -> None:
    """Writes a UTF-8 file, atomically."""

    def write(target: Path) -> None:
        target.write_bytes(text.encode("utf-8", "replace"))  # halves of surrogate pairs have no other form

    write_atomically(path, write)


@dataclass(frozen=True, kw_only=True)
class State:
    """An article and what made it."""

    action: str
    article: Article


@dataclass(frozen=True, kw_only=True)
class _Saved:
    states: tuple[State, ...]
    at: int = 0
    version: int = VERSION


@dataclass
class Document:
    """An article with its history.

    Attributes:
        states: All states up to the newest.
        at: Index of the state in force.
    """

    states: list[State]
    at: int = field(default=0)

    @classmethod
    def new(cls, article: Article, action: str = "new") -> Document:
        """A document with one state."""
        return cls([State(action=action, article=article)])

    @property
    def article(self) -> Article:
        """The state in force."""
        return self.states[self.at].article

    def apply(self, action: str, article: Article) -> Article:
        """Makes ``article`` the newest state; states that were undone are forgotten. No change is no state."""
        if article != self.article:
            self.states[self.at + 1 :] = [State(action=action, article=article)]
            self.at += 1
        return self.article

    def change(self, action: str, edit: Callable[[Article], Article]) -> Article:
        """Applies an edit to the state in force."""
        return self.apply(action, edit(self.article))

    def undo(self) -> Article:
        """One state back.

        Raises:
            ConfigError: this is the first.
        """
        if self.at == 0:
            raise ConfigError("nothing to undo: this is the first state of the article")
        self.at -= 1
        return self.article

    def redo(self) -> Article:
        """One state forward.

        Raises:
            ConfigError: this is the newest.
        """
        if self.at + 1 == len(self.states):
            raise ConfigError("nothing to redo: this is the newest state of the article")
        self.at += 1
        return self.article

    def save(self, path: Path | str) -> None:
        """Writes article and history as JSON, atomically."""
        data = to_dict(_Saved(states=tuple(self.states), at=self.at))
        text = json.dumps(data, ensure_ascii=False, indent=1)
        write_text(path, text)

    @classmethod
    def load(cls, path: Path | str) -> Document:
        """Reads what `save` wrote.

        Raises:
            ConfigError: no such file, or no article.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            data = json.loads(
                json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
            )  # no halves of characters
        except OSError as error:
            raise ConfigError(f"the article {path} cannot be read ({error.strerror}); check the path") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is no JSON ({error}); give a file that `Document.save` wrote") from None
        version = data.get("version") if isinstance(data, dict) else None
        if version != VERSION:
            raise ConfigError(
                f"{path}: version {version!r} of an article; expected {VERSION}: a file that `Document.save` wrote"
            )
        try:
            saved = from_dict(_Saved, data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        if not 0 <= saved.at < len(saved.states):
            raise ConfigError(
                f"{path}: state {saved.at} of {len(saved.states)}; the file was changed by hand: correct 'at'"
            )
        return cls(list(saved.states), saved.at)
