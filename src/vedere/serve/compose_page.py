"""The web page for composing articles: what is where, and which click calls which method of a `Desk`.

The published demos' page (arXiv 2309.15112, 2401.16420): brief, article with pictures in place, candidates to swap, operations
on paragraphs, exports. Here every visitor's article lives on the server under a token that the browser tab keeps, so a reload
finds it again. An error becomes one line of words above the article and changes nothing. The page asks no other host for
anything and says so to the browser (`vedere.serve.site`).

Gradio is optional: ``pip install 'vedere[serve]'``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vedere.compose.prompts import Brief
from vedere.errors import ConfigError, VedereError
from vedere.serve.compose_layout import Layout, brand, hint, numbers, where
from vedere.serve.desk import Desk, Proposal
from vedere.serve.desks import Desks
from vedere.serve.downloads import KINDS, Downloads
from vedere.serve.error_words import told
from vedere.serve.sheet import candidates, sheet, status
from vedere.serve.words import WORDS, words

if TYPE_CHECKING:
    import gradio

_TOKEN = """() => {
  let token = sessionStorage.getItem("vedere-desk");
  if (!token) {
    token = Array.from(crypto.getRandomValues(new Uint8Array(20)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("vedere-desk", token);
  }
  return [token, document.documentElement.lang, null];
}"""
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}

# What was typed is handed over once, so that a quick second click cannot bring back a text that the first one took away.
_TYPED = "(...all) => { if (!globalThis.vedereTyped) all[2] = null; globalThis.vedereTyped = false; return all; }"
_FETCH = """(link) => {
  if (!link) return;
  const anchor = Object.assign(document.createElement("a"), {href: link, download: ""});
  document.body.append(anchor); anchor.click(); anchor.remove();
}"""


def asset(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return resources.files("vedere.serve").joinpath(name).read_text("utf-8")


class ComposePage(Layout):
    """The page.

    Attributes:
        desks: The visitors' desks.
        downloads: Files that were made for them.
    """

    def __init__(self, desks: Desks, downloads: Downloads, language: str = "en") -> None:
        super().__init__(language, desks.studio.style.second)
        self.desks, self.downloads = desks, downloads
        self._sent: WeakKeyDictionary[Desk, dict[str, Any]] = WeakKeyDictionary()
        with self.blocks:
            self._connect()

    # What a visitor sees of a desk

    @property
    def _shown(self) -> list[Any]:
        """Every component that `_view` fills, in its order."""
        return [
            *(self.status, self.sheet, self.brief, self.open_first, self.tools, self.panel, self.generate, self.stop),
            *(
                self.undo,
                self.redo,
                self.hint,
                self.work,
                self.heading,
                self.text,
                self.delete,
                self.offer,
                self.proposal,
            ),
            *(self.below, self.candidates, self.caption, self.add, self.remove),
        ]

    def _view(self, desk: Desk, language: str, message: str = "", *, wrong: bool = False) -> list[Any]:
        try:
            self.desks.keep(desk)
        except VedereError as error:  # the disk; the article itself goes on in memory
            message, wrong = told(str(error), language), True
        gr, say, article = self.gr, words(language), desk.article
        document, place, spot = desk.document, desk.selected, desk.spot
        chosen = place is not None and not desk.running and document is not None
        paragraph = chosen and place is not None and place >= 0
        offer = desk.proposal if paragraph and _belongs(desk.proposal, place) else None
        heading = say["title"] if place == -1 else say["paragraph"].format((place or 0) + 1)
        shelf = self.desks.studio.shelf
        text = ""
        if chosen and document is not None and place is not None:
            text = document.article.at(place).text if paragraph else document.article.title
        shown = (
            "" if article is None else sheet(article, shelf, say, selected=place if chosen else None, stage=desk.stage)
        )
        return [
            status(desk.stage, say, message, wrong=wrong),
            shown,
            self._fresh(desk, "brief", article is None, None, shown=lambda is_open: gr.update(open=is_open)),
            gr.update(visible=article is None),
            gr.update(visible=document is not None and not desk.running),
            gr.update(visible=document is not None and not desk.running),
            gr.update(visible=not desk.running, interactive=True),
            gr.update(visible=desk.running),
            gr.update(interactive=document is not None and document.at > 0),
            gr.update(interactive=document is not None and document.at + 1 < len(document.states)),
            gr.update(visible=not chosen),
            gr.update(visible=chosen),
            f"<h2>{heading}</h2>",
            self._fresh(desk, "text", text, place),
            gr.update(visible=paragraph),
            gr.update(visible=offer is not None),
            self._fresh(desk, "proposal", offer.text if offer else "", id(offer)),
            gr.update(visible=paragraph),
            gr.update(value=candidates(spot, shelf, say) if spot else "", visible=spot is not None),
            self._fresh(desk, "caption", spot.caption if spot else "", place),
            gr.update(visible=spot is None),
            gr.update(visible=spot is not None),
        ]

    def _fresh(
        self, desk: Desk, box: str, value: Any, of: object, shown: Callable[[Any], Any] = lambda value: value
    ) -> Any:
        """The value of a box if it is another one than was sent last: what a visitor has done meanwhile is not undone."""
        sent = self._sent.setdefault(desk, {})
        if sent.get(box) == (value, of):
            return self.gr.skip()
        sent[box] = (value, of)
        return shown(value)

    def _failed(self, desk: Desk | None, language: str, error: Exception) -> list[Any]:
        say = words(language)
        if isinstance(error, VedereError):
            reason = told(str(error), language)
        else:
            traceback.print_exception(error)
            reason = say["crashed"].format(type(error).__name__)
        desk = desk or Desk(self.desks.studio)
        return self._view(desk, language, say["failed"].format(reason.rstrip(".")), wrong=True)

    # Which click calls what

    def _on(
        self,
        listener: Callable[..., Any],
        call: Callable[..., str | None],
        inputs: Sequence[Any] = (),
        *,
        commits: bool = True,
        empties: Sequence[Any] = (),
        repeats: bool = False,
        stage: str = "",
    ) -> None:
        """Lets an event call ``call(desk, *values)``; what it returns is said, what it raises, too.

        Args:
            listener: The event.
            call: What is done.
            inputs: Components whose values are handed over.
            commits: Take over a changed text of the selected paragraph first.
            empties: Boxes that are emptied when all went well.
            repeats: A second click while the first is under way counts, too.
            stage: What is said meanwhile.
        """

        skip = self.gr.skip()

        def handle(desk: Desk | None, language: str, typed: str | None, *values: Any) -> Iterator[list[Any]]:
            if stage:
                yield [status(stage, words(language)), *(skip for _ in (*self._shown[1:], *empties))]
            try:
                desk = _arrived(desk)
                if commits:
                    desk.commit(typed)
                message = call(desk, *values) or ""
            except Exception as error:
                yield [*self._failed(desk, language, error), *(skip for _ in empties)]
            else:
                yield [*self._view(desk, language, message), *("" for _ in empties)]

        listener(
            handle,
            [self.desk, self.speaks, self.text, *inputs],
            [*self._shown, *empties],
            js=_TYPED if commits else None,
            trigger_mode="multiple" if repeats else "once",
            **_QUIET,
        )

    def _on_pick(self, component: Any, call: Callable[[Desk, int], None]) -> None:
        """Lets a click on a part of our own HTML call ``call(desk, number)``."""
        gr = self.gr

        def handle(desk: Desk | None, language: str, typed: str | None, event: gradio.EventData) -> list[Any]:
            try:
                desk = _arrived(desk)
                number = event._data.get("number") if isinstance(event._data, dict) else None
                if not isinstance(number, int):
                    raise ConfigError(f"a click on {number!r}; expected a number")
                desk.commit(typed)
                call(desk, number)
            except Exception as error:
                return self._failed(desk, language, error)
            return self._view(desk, language)

        handle.__annotations__["event"] = gr.EventData
        component.click(
            handle,
            [self.desk, self.speaks, self.text],
            self._shown,
            js=_TYPED,
            **_QUIET,
        )

    def _on_long(
        self, listener: Callable[..., Any], begin: Callable[..., Iterator[None]], inputs: Sequence[Any] = ()
    ) -> None:
        """Lets an event begin what takes long, and shows it grow."""

        def handle(desk: Desk | None, language: str, typed: str | None, *values: Any) -> Iterator[list[Any]]:
            try:
                desk = _arrived(desk)
                desk.commit(typed)
                desk.start(begin(desk, *values))
                yield from self._growing(desk, language)
            except Exception as error:
                yield self._failed(desk, language, error)
            else:
                yield self._view(desk, language, words(language)["no_place"] if desk.unplaced else "")

        listener(
            handle,
            [self.desk, self.speaks, self.text, *inputs],
            self._shown,
            js=_TYPED,
            **_QUIET,
        )

    def _growing(self, desk: Desk, language: str) -> Iterator[list[Any]]:
        """The whole view first; then only what changes."""
        first = True
        for _ in desk.follow():
            view = self._view(desk, language)
            yield view if first else [*view[:2], *(self.gr.skip() for _ in view[2:])]
            first = False

    def _connect(self) -> None:
        self.blocks.load(
            self._arrive,
            [self.token, self.speaks],
            [self.desk, *self._shown],
            js=_TOKEN,
            api_visibility="private",
            show_progress="hidden",
        )
        self.switch.click(
            self._speak,
            [self.desk, self.speaks, self.text],
            [
                self.speaks,
                self.code,
                self.brand,
                self.hint,
                *(one for one, _ in self.worded),
                self.number,
                self.where,
                *self._shown,
            ],
            js=_TYPED,
            **_QUIET,
        ).then(None, [self.code], None, js="(code) => { document.documentElement.lang = code; }")
        asked = [self.title, self.outline, self.requirements, self.material, self.own, self.number]
        self._on_long(self.generate.click, _generate, asked)
        self._on_long(self.title.submit, _generate, asked)
        self._on_long(self.proceed.click, lambda desk: desk.proceed())
        self._on_long(
            self.illustrate.click, lambda desk, number: desk.illustrate(_count(number) or None), [self.number]
        )
        self.stop.click(_stop, [self.desk], None, queue=False, api_visibility="private")
        self._on(self.undo.click, lambda desk: desk.undo(), repeats=True)
        self._on(self.redo.click, lambda desk: desk.redo(), repeats=True)
        self._on_pick(self.sheet, lambda desk, place: desk.select(place))
        self._on_pick(self.candidates, lambda desk, number: desk.pick(number))
        self._on(self.close.click, lambda desk: desk.select(None))
        self._on(self.apply.click, _save_text, [self.text], commits=False)
        self._on(self.delete.click, lambda desk: desk.delete(), commits=False)
        for name, button in self.operations.items():
            self._on(button.click, _proposing(name), [self.support], stage="write")
        self._on(self.accept.click, lambda desk, text: desk.accept(text), [self.proposal])
        self._on(self.discard.click, lambda desk: desk.discard())
        where = [self.insert_text, self.where]
        self._on(
            self.insert_write.click,
            lambda desk, text, where: desk.propose("insert", text, where == "after"),
            where,
            empties=[self.insert_text],
            stage="write",
        )
        self._on(
            self.insert_own.click,
            lambda desk, text, where: desk.insert(text, where == "after"),
            where,
            empties=[self.insert_text],
        )
        self._on(self.add.click, lambda desk: desk.add_picture(), stage="find")
        self._on(self.search.click, lambda desk, caption: desk.search(caption), [self.caption], stage="find")
        self._on(self.caption.submit, lambda desk, caption: desk.search(caption), [self.caption], stage="find")
        self._on(self.remove.click, lambda desk: desk.remove_picture())
        self._on(self.upload.upload, lambda desk, file: desk.place_picture(file), [self.upload])
        for button in (self.open, self.open_first):
            self._on(button.upload, self._open, [button, self.speaks], commits=False)
        for kind, button in self.exports.items():
            self._connect_export(kind, button)

    def _connect_export(self, kind: str, button: Any) -> None:
        def handle(desk: Desk | None, language: str, typed: str | None) -> list[Any]:
            try:
                desk = _arrived(desk)
                desk.commit(typed)
                link, name = self.downloads.make(KINDS[kind], desk)
            except Exception as error:
                return [*self._failed(desk, language, error), ""]
            return [*self._view(desk, language, words(language)["saved"].format(name)), link]

        button.click(
            handle,
            [self.desk, self.speaks, self.text],
            [*self._shown, self.link],
            js=_TYPED,
            **_QUIET,
        ).then(None, [self.link], None, js=_FETCH)

    def _arrive(self, token: str, language: str) -> Iterator[list[Any]]:
        """A page was opened: finds its desk, and goes on showing what runs there."""
        desk = self.desks.at(str(token)[:64])
        self._sent.pop(desk, None)
        try:
            for view in self._growing(desk, language):
                yield [desk, *view]
        except Exception as error:
            yield [desk, *self._failed(desk, language, error)]
        else:
            yield [desk, *self._view(desk, language)]

    def _speak(self, desk: Desk | None, language: str, typed: str | None) -> list[Any]:
        """Puts in the words of the other language."""
        gr, desk = self.gr, desk or Desk(self.desks.studio)
        if not desk.running:
            desk.commit(typed)
        (language,) = [code for code in WORDS if code != language]
        say = words(language)
        return [
            language,
            language,
            brand(say),
            hint(say),
            *(gr.update(**{name: say[key] for name, key in worded.items()}) for _, worded in self.worded),
            gr.update(choices=numbers(say)),
            gr.update(choices=where(say)),
            *self._view(desk, language),
        ]

    def _open(self, desk: Desk, path: str, language: str) -> str:
        missing = desk.open(path)
        say = words(language)
        return say["opened_without"].format(missing) if missing else say["opened"]


def _arrived(desk: Desk | None) -> Desk:
    if desk is None:
        raise ConfigError("the page has not connected yet; try again in a moment")
    return desk


def _generate(
    desk: Desk, title: str, outline: str, requirements: str, material: str, own: list[str] | None, number: int
) -> Iterator[None]:
    desk.bring(own or [])
    brief = Brief(title=title, outline=outline, requirements=requirements, material=material, pictures=desk.own)
    return desk.generate(brief, _count(number))


def _count(number: int) -> int | None:
    return None if number < 0 else number


def _proposing(name: Any) -> Callable[[Desk, str], None]:
    return lambda desk, material: desk.propose(name, material)


def _save_text(desk: Desk, text: str) -> None:
    if not text.strip():
        raise ConfigError("the text is empty; write some, or delete the paragraph")
    desk.commit(text)


def _stop(desk: Desk | None) -> None:
    if desk is not None:
        desk.stop()


def _belongs(proposal: Proposal | None, place: int | None) -> bool:
    return (
        proposal is not None
        and place is not None
        and (proposal.place == place or (proposal.operation == "insert" and proposal.place == place + 1))
    )
