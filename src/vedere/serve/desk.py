"""What one visitor works on: an article with its history, what is selected, what is proposed, what is being written.

No word of a page is in here; a page shows a `Desk` and calls its methods. A method either does what it says or raises a
`VedereError` and leaves everything as it was. What takes long is a generator; `Desk.start` drains it in a thread of its own, so
that a browser that goes away stops nothing and finds its article again. One thing runs at a time. What a run has made until
it is stopped, or until an error, becomes a state of the document that can be undone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vedere.compose.article import Article, Document, Illustration, Picture, one_line
from vedere.compose.cast import language_of, spoken
from vedere.compose.editor import Editor
from vedere.compose.matching import steps_for
from vedere.compose.prompts import Brief, Style
from vedere.compose.steps import Draft, Gallery, Model, OwnPictures, Step, watch
from vedere.errors import ConfigError, PromptError
from vedere.serve.shelf import Shelf

MOST_OWN = 10  # pictures of the visitor's own, as in the published demo

Operation = Literal["regenerate", "expand", "rewrite", "abbreviate", "insert"]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What all visitors share.

    Attributes:
        model: Writes and chooses.
        style: Its prompts.
        gallery: Finds pictures; None: only the visitors' own.
        shelf: Gives pictures out.
        sees: The model can choose among pictures; else the first one found is taken.
        places: The model's places and captions can be used; else the text itself is searched for.
    """

    model: Model
    style: Style
    gallery: Gallery | None
    shelf: Shelf
    sees: bool = True
    places: bool = True

    def steps(self, title: str, gallery: Gallery, number: int | None) -> Sequence[tuple[str, Step]]:
        """The pipeline for an article in the language of its title."""
        style = spoken(self.style, language_of(title))
        return steps_for(self.model, gallery, style, number=number, sees=self.sees, places=self.places)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A text that the model offers.

    Attributes:
        operation: What was asked for.
        place: Paragraph that it replaces, or in front of which it is put.
        text: The offer.
    """

    operation: Operation
    place: int
    text: str


@dataclass(eq=False)
class Desk:
    """One visitor's desk.

    Attributes:
        studio: What it works with.
        document: The article; None: nothing was written yet.
        brief: What was asked for.
        own: The visitor's own pictures.
        selected: Paragraph that is worked on; -1: the title; None: nothing.
        proposal: What the model offers for a paragraph.
        stage: Step that runs; empty: nothing runs.
        preview: What the running step has made so far.
        failure: What ended the last run before its end.
        unplaced: The last run wrote an article and found no place for a picture in it.
    """

    studio: Studio
    document: Document | None = None
    brief: Brief | None = None
    own: tuple[Picture, ...] = ()
    selected: int | None = None
    proposal: Proposal | None = None
    stage: str = ""
    preview: Article | None = None
    failure: Exception | None = None
    unplaced: bool = False
    _running: bool = False
    _stopping: bool = False
    _gate: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _changed: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def article(self) -> Article | None:
        """What is to be shown: what is being written, else the state in force."""
        if self.preview is not None:
            return self.preview
        return None if self.document is None else self.document.article

    @property
    def running(self) -> bool:
        """Whether something is being made."""
        return self._running

    @property
    def spot(self) -> Illustration | None:
        """What stands behind the selected paragraph."""
        place = self.selected
        if self.document is None or place is None or not 0 <= place < len(self.document.article.paragraphs):
            return None
        return self.document.article.at(place).illustration

    def gallery(self) -> Gallery:
        """Where pictures are looked for: the visitor's own, if there are any."""
        return self.studio.gallery if self.studio.gallery is not None and not self.own else OwnPictures(self.own)

    # What takes long

    def generate(self, brief: Brief, number: int | None = None) -> Iterator[None]:
        """Writes and illustrates an article; the former one is a state behind it.

        Args:
            brief: What to write; the desk's own pictures are put in.
            number: Pictures; None: the model decides.
        """
        steps = self.studio.steps(brief.title, self.gallery(), number)
        if number == 0 or not (self.own or self.studio.gallery):
            steps = steps[:1]
        yield from self._watched("generate", steps, Draft.of(brief), brief)

    def illustrate(self, number: int | None = None) -> Iterator[None]:
        """Looks for places, captions and pictures in the text that is there; pictures that are there stay."""
        article = self._document().article
        steps = self.studio.steps(article.title, self._any_gallery(), number)[1:]
        brief = self.brief or Brief(title=article.title)
        yield from self._watched("illustrate", steps, Draft(brief=brief, article=article), self.brief)

    def proceed(self) -> Iterator[None]:
        """Lets the model go on after the last paragraph."""
        editor = self._editor()
        with self._busy("write"):
            yield
            for article in editor.continuing():
                self.preview = article
                yield
                if self._stopping:
                    editor.document.apply("continue", article)
                    return

    def _watched(
        self, action: str, steps: Sequence[tuple[str, Step]], draft: Draft, brief: Brief | None
    ) -> Iterator[None]:
        begun = made = draft.article
        with self._busy(steps[0][0]):
            try:
                for name, part in watch(steps, draft):
                    self.stage, self.preview, made = name, part.article, part.article
                    yield
                    if self._stopping:
                        return
            finally:
                if made != begun:
                    self._keep(action, made, brief)
            if made == begun:
                raise ConfigError("no further place for a picture was found; click a paragraph to add one there")
            self.unplaced = len(steps) > 1 and not made.spots()

    def _keep(self, action: str, article: Article, brief: Brief | None) -> None:
        self.brief = brief
        if self.document is None:
            self.document = Document.new(article, action)
        else:
            self.document.apply(action, article)
        if action == "generate":
            self.selected = self.proposal = None

    @contextlib.contextmanager
    def _busy(self, stage: str) -> Iterator[None]:
        with self._gate:
            self._check_idle()
            self._running, self._stopping, self.stage, self.unplaced = True, False, stage, False
        try:
            yield
        finally:
            self._running, self._stopping, self.stage, self.preview = False, False, "", None

    def start(self, work: Iterator[None]) -> None:
        """Begins what takes long and drains it in a thread; `follow` watches it."""
        self.failure = None
        next(work, None)

        def drain() -> None:
            try:
                for _ in work:
                    self._changed.set()
            except Exception as error:
                self.failure = error
            self._changed.set()

        threading.Thread(target=drain, name="desk", daemon=True).start()

    def follow(self, pause: float = 0.1) -> Iterator[None]:
        """Yields when something was made, at most every ``pause`` seconds, until nothing runs.

        Raises:
            Exception: what ended the run, once.
        """
        while self._running:
            self._changed.clear()
            yield
            self._changed.wait(timeout=1.0)
            time.sleep(pause)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Lets what runs end after its present piece; what it has made stays."""
        self._stopping = True

    # What is selected

    def select(self, place: int | None) -> None:
        """Works on a paragraph (-1: the title), or on nothing."""
        if place is None:
            self.selected = None
            return
        if place != -1:
            self._document().article.at(place)
        self.selected = place

    def commit(self, text: str | None) -> None:
        """Takes over what the visitor has typed for the selected paragraph or title; nothing, or blanks, change nothing."""
        place = self.selected
        if place is None or self.document is None or text is None or not one_line(text):
            return
        self._check_idle()
        if place == -1:
            self._editor().retitle(text)
        elif place < len(self.document.article.paragraphs):
            self._editor().edit(place, text)

    # Paragraphs

    def propose(self, operation: Operation, material: str = "", after: bool = False) -> None:
        """Asks the model for another form of the selected paragraph, or for one beside it.

        Args:
            operation: What to ask for.
            material: Reference text; for ``insert`` the outline.
            after: Insert behind the paragraph.
        """
        place, editor = self._place(), self._editor()
        with self._busy(operation):
            if operation == "insert":
                place += after
                text = editor.paragraph_between(place, material)
            elif operation == "regenerate":
                text = editor.regenerate(place)
            elif operation == "abbreviate":
                text = editor.abbreviate(place)
            elif operation == "expand":
                text = editor.expand(place, material)
            else:
                text = editor.rewrite(place, material)
        if not text:
            raise ConfigError("the model answered nothing; ask again, or write the paragraph yourself")
        self.proposal = Proposal(operation=operation, place=place, text=text)

    def accept(self, text: str) -> None:
        """Takes the proposal, as the visitor may have changed it."""
        proposal = self.proposal
        if proposal is None:
            raise ConfigError("there is no proposal; ask for one first")
        if not one_line(text):
            raise ConfigError("the proposal was emptied; discard it, or delete the paragraph")
        if proposal.operation == "insert":
            self._editor().insert(proposal.place, text)
            self.selected = proposal.place
        else:
            self._editor().edit(proposal.place, text)
        self.proposal = None

    def discard(self) -> None:
        """Forgets the proposal."""
        self.proposal = None

    def insert(self, text: str, after: bool) -> None:
        """Puts the visitor's own paragraph beside the selected one."""
        place = self._place() + after
        self._editor().insert(place, text)
        self.selected, self.proposal = place, None

    def delete(self) -> None:
        """Removes the selected paragraph with its picture."""
        self._editor().edit(self._place(), "")
        self.selected = self.proposal = None

    # Pictures

    def bring(self, paths: Sequence[Path | str]) -> None:
        """Takes the visitor's own pictures, instead of those that were there.

        Raises:
            MediaError: one of them is no picture.
            ConfigError: too many.
        """
        if len(paths) > MOST_OWN:
            raise ConfigError(f"{len(paths)} pictures of your own; expected at most {MOST_OWN}: leave some out")
        self.own = tuple({kept.id: kept for kept in map(self.studio.shelf.keep, paths)}.values())

    def add_picture(self) -> None:
        """Lets the model caption, find and choose a picture for the selected paragraph."""
        place, editor = self._place(), self._editor()
        self._any_gallery()
        with self._busy("find"):
            editor.add_picture(place)

    def search(self, caption: str) -> None:
        """Looks for other pictures by a caption."""
        place, editor = self._place(), self._editor()
        self._any_gallery()
        if not one_line(caption):
            raise PromptError("a search without words; say what the picture should show")
        with self._busy("find"):
            editor.search(place, one_line(caption))

    def pick(self, candidate: int) -> None:
        """Takes another candidate."""
        self._editor().swap(self._place(), candidate)

    def remove_picture(self) -> None:
        """Removes the picture of the selected paragraph."""
        self._editor().remove_picture(self._place())

    def place_picture(self, path: Path | str) -> None:
        """Puts a picture of the visitor's own behind the selected paragraph."""
        place = self._place()
        self._editor().place_picture(place, self.studio.shelf.keep(path))

    # History

    def undo(self) -> None:
        """One state back."""
        self._check_idle()
        self._document().undo()
        self._after_travel()

    def redo(self) -> None:
        """One state forward."""
        self._check_idle()
        self._document().redo()
        self._after_travel()

    def open(self, path: Path | str) -> int:
        """Opens a saved article with its history; returns how many of its pictures are not on this computer."""
        self._check_idle()
        document, missing = self.studio.shelf.admitted(Document.load(path))
        self.document, self.brief, self.selected, self.proposal = document, None, None, None
        return missing

    def _after_travel(self) -> None:
        self.proposal = None
        if self.selected is not None and self.selected >= len(self._document().article.paragraphs):
            self.selected = None

    def _document(self) -> Document:
        if self.document is None:
            raise ConfigError("there is no article yet; give a title and generate one, or open a saved one")
        return self.document

    def _editor(self) -> Editor:
        self._check_idle()
        document, studio = self._document(), self.studio
        style = spoken(studio.style, language_of(document.article.title))
        return Editor(document, studio.model, style, self.gallery(), self.brief, sees=studio.sees, places=studio.places)

    def _place(self) -> int:
        if self.selected is None or self.selected < 0:
            raise ConfigError("no paragraph is selected; click one first")
        return self.selected

    def _any_gallery(self) -> Gallery:
        if self.studio.gallery is None and not self.own:
            raise ConfigError("there is no gallery to search; bring pictures of your own, or start with --gallery DIR")
        return self.gallery()

    def _check_idle(self) -> None:
        if self.running:
            raise ConfigError("the article is being written; wait for its end, or stop it")
