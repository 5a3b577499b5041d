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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedere.compose.prompts import Brief
from vedere.errors import ConfigError, VedereError
from vedere.serve.desk import Desk, Desks, Proposal
from vedere.serve.downloads import KINDS, Downloads
from vedere.serve.sheet import candidates, sheet, status
from vedere.serve.words import WORDS, words

if TYPE_CHECKING:
    import gradio

NUMBERS = 15  # most pictures that may be asked for, as in the published demo

_TOKEN = """() => {
  let token = sessionStorage.getItem("vedere-desk");
  if (!token) {
    token = Array.from(crypto.getRandomValues(new Uint8Array(20)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("vedere-desk", token);
  }
  return [token, document.documentElement.lang, null];
}"""
_FETCH = """(link) => {
  if (!link) return;
  const anchor = Object.assign(document.createElement("a"), {href: link, download: ""});
  document.body.append(anchor); anchor.click(); anchor.remove();
}"""
_CLICKS = """
element.addEventListener("click", (event) => {
  const pick = event.target.closest("[data-pick]");
  const block = event.target.closest("[data-place]");
  if (pick) trigger("click", {number: Number(pick.dataset.pick)});
  else if (block && !String(getSelection())) trigger("click", {number: Number(block.dataset.place)});
});
"""


def asset(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return resources.files("vedere.serve").joinpath(name).read_text("utf-8")


def needs_gradio() -> Any:
    """Gradio.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import gradio
    except ModuleNotFoundError:
        raise ConfigError("the page needs the package gradio; install it with: pip install 'vedere[serve]'") from None
    return gradio


class ComposePage:
    """The page.

    Attributes:
        desks: The visitors' desks.
        downloads: Files that were made for them.
        language: What the page speaks at first.
        blocks: The page as Gradio's object.
    """

    def __init__(self, desks: Desks, downloads: Downloads, language: str = "en") -> None:
        self.gr: Any = needs_gradio()
        self.desks, self.downloads, self.language = desks, downloads, language
        self._worded: list[tuple[Any, dict[str, str]]] = []
        with self.gr.Blocks(title="vedere compose", analytics_enabled=False, fill_width=True) as self.blocks:
            self._lay_out(words(language))
            self._connect()

    # What is where

    def _made(self, kind: Any, /, *args: Any, say: dict[str, str], **options: Any) -> Any:
        """A component whose words are known by their keys, so that another language can be put in."""
        table = words(self.language)
        made = kind(*args, **{name: table[key] for name, key in say.items()}, **options)
        self._worded.append((made, say))
        return made

    def _button(self, key: str, **options: Any) -> Any:
        return self._made(self.gr.Button, say={"value": key}, elem_id=f"do-{key.replace('_', '-')}", **options)

    def _box(self, key: str, lines: int = 1, hint: str = "", **options: Any) -> Any:
        say = {"label": key} | ({"placeholder": hint} if hint else {})
        return self._made(self.gr.Textbox, say=say, lines=lines, elem_id=f"box-{key.replace('_', '-')}", **options)

    def _lay_out(self, say: dict[str, str]) -> None:
        gr = self.gr
        self.desk, self.speaks = gr.State(None), gr.State(self.language)
        self.token, self.link = gr.Textbox(visible=False), gr.Textbox(visible=False)
        with gr.Row(elem_id="top"):
            self.brand = gr.HTML(_brand(say), elem_id="brand")
            self.switch = self._button("language", size="sm", variant="secondary")
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="main"):
                self._lay_out_brief(say)
                self.tools = gr.Column(visible=False, elem_id="tools")
                with self.tools:
                    self._lay_out_tools()
                self.status = gr.HTML("", elem_id="status")
                self.sheet = gr.HTML("", elem_id="sheet", js_on_load=_CLICKS, apply_default_css=False)
            self.panel = gr.Column(visible=False, elem_id="panel")
            with self.panel:
                self._lay_out_panel(say)

    def _lay_out_brief(self, say: dict[str, str]) -> None:
        gr = self.gr
        self.brief = self._made(gr.Accordion, say={"label": "brief"}, open=True, elem_id="brief")
        with self.brief:
            self.title = self._box("title", hint="title_hint", max_lines=3, autofocus=True)
            self.outline = self._box("outline", 3, "outline_hint")
            with gr.Row():
                self.requirements = self._box("requirements", 2, "requirements_hint")
                self.material = self._box("material", 2, "material_hint", max_lines=12)
            self.own = self._made(
                gr.File, say={"label": "own"}, file_count="multiple", file_types=["image"], height=120, elem_id="own"
            )
            with gr.Row(elem_id="go"):
                self.number = self._made(
                    gr.Dropdown,
                    say={"label": "number"},
                    choices=_numbers(say),
                    value=-1,
                    filterable=False,
                    min_width=180,
                )
                self.generate = self._button("generate", variant="primary")
                self.stop = self._button("stop", variant="stop", visible=False)
        self.open_first = self._made(
            gr.UploadButton, say={"label": "open_saved"}, file_types=[".json"], size="sm", elem_id="open-first"
        )

    def _lay_out_tools(self) -> None:
        gr = self.gr
        with gr.Row(elem_id="history"):
            self.undo, self.redo = self._button("undo", size="sm"), self._button("redo", size="sm")
            self.proceed = self._button("proceed", size="sm")
            self.illustrate = self._button("illustrate", size="sm")
        with gr.Row(elem_id="files"):
            names = {"html": "HTML", "markdown": "Markdown", "docx": "DOCX", "json": "JSON"}
            self.exports = {
                kind: gr.Button(name, size="sm", elem_id=f"export-{kind}", min_width=60) for kind, name in names.items()
            }
            self.exports["saved"] = self._button("save", size="sm", min_width=60)
            self.open = self._made(
                gr.UploadButton,
                say={"label": "open"},
                file_types=[".json"],
                size="sm",
                min_width=60,
                elem_id="do-open",
            )

    def _lay_out_panel(self, say: dict[str, str]) -> None:
        gr = self.gr
        self.hint = gr.HTML(_hint(say), elem_id="hint")
        self.work = gr.Column(visible=False, elem_id="work")
        with self.work:
            with gr.Row(elem_id="which"):
                self.heading = gr.HTML("", elem_id="heading")
                self.close = self._button("close", size="sm", min_width=60)
            self.text = self._box("text", 5, max_lines=14)
            with gr.Row():
                self.apply = self._button("apply", size="sm", variant="primary")
                self.delete = self._button("delete", size="sm")
            self.offer = gr.Column(visible=False, elem_id="offer")
            with self.offer:
                self.proposal = self._box("proposal", 4, max_lines=14)
                with gr.Row():
                    self.accept = self._button("accept", size="sm", variant="primary")
                    self.discard = self._button("discard", size="sm")
            self.below = gr.Column(elem_id="below")
            with self.below:
                self._lay_out_picture(say)
                self._lay_out_operations(say)

    def _lay_out_picture(self, say: dict[str, str]) -> None:
        gr = self.gr
        with self._made(gr.Accordion, say={"label": "picture"}, open=True):
            self.candidates = gr.HTML(
                "", elem_id="candidates", js_on_load=_CLICKS, apply_default_css=False, visible=False
            )
            with gr.Row(elem_id="find"):
                self.caption = self._box("caption", hint="caption_hint", max_lines=3, scale=3)
                self.search = self._button("search", size="sm", scale=1, min_width=70)
            with gr.Row():
                self.add = self._button("add", size="sm")
                self.remove = self._button("remove", size="sm", visible=False)
                self.upload = self._made(
                    gr.UploadButton, say={"label": "upload"}, file_types=["image"], size="sm", elem_id="do-upload"
                )

    def _lay_out_operations(self, say: dict[str, str]) -> None:
        gr = self.gr
        tuned = self.desks.studio.style.second
        with self._made(gr.Accordion, say={"label": "ask"}, open=True):
            with gr.Row(elem_id="operations"):
                self.operations = {
                    "regenerate": self._button("regenerate", size="sm", min_width=90),
                    "expand": self._button("expand", size="sm", min_width=90, visible=tuned),
                    "rewrite": self._button("rewrite", size="sm", min_width=90, visible=tuned),
                    "abbreviate": self._button("abbreviate", size="sm", min_width=90, visible=tuned),
                }
            self.support = self._box("support", hint="support_hint", max_lines=6, visible=tuned)
        with self._made(gr.Accordion, say={"label": "insert"}, open=False):
            self.where = self._made(
                gr.Radio, say={"label": "where"}, choices=_where(say), value="after", elem_id="where"
            )
            self.insert_text = self._box("insert_text", 2, "insert_hint", max_lines=8)
            with gr.Row():
                self.insert_write = self._button("insert_write", size="sm", visible=tuned)
                self.insert_own = self._button("insert_own", size="sm")

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
            gr.update(open=article is None),
            gr.update(visible=article is None),
            gr.update(visible=document is not None and not desk.running),
            gr.update(visible=document is not None and not desk.running),
            gr.update(visible=not desk.running),
            gr.update(visible=desk.running),
            gr.update(interactive=document is not None and document.at > 0),
            gr.update(interactive=document is not None and document.at + 1 < len(document.states)),
            gr.update(visible=not chosen),
            gr.update(visible=chosen),
            f"<h2>{heading}</h2>",
            text,
            gr.update(visible=paragraph),
            gr.update(visible=offer is not None),
            offer.text if offer else "",
            gr.update(visible=paragraph),
            gr.update(value=candidates(spot, shelf, say) if spot else "", visible=spot is not None),
            spot.caption if spot else "",
            gr.update(visible=spot is None),
            gr.update(visible=spot is not None),
        ]

    def _failed(self, desk: Desk, language: str, error: Exception) -> list[Any]:
        say = words(language)
        if isinstance(error, VedereError):
            told = str(error)
        else:
            traceback.print_exception(error)
            told = say["crashed"].format(type(error).__name__)
        return self._view(desk, language, f"{say['failed']} {told} {say['unchanged']}", wrong=True)

    # Which click calls what

    def _on(
        self,
        listener: Callable[..., Any],
        call: Callable[..., str | None],
        inputs: Sequence[Any] = (),
        *,
        commits: bool = True,
        empties: Sequence[Any] = (),
    ) -> None:
        """Lets an event call ``call(desk, *values)``; what it returns is said, what it raises, too.

        Args:
            listener: The event.
            call: What is done.
            inputs: Components whose values are handed over.
            commits: Take over a changed text of the selected paragraph first.
            empties: Boxes that are emptied when all went well.
        """

        def handle(desk: Desk | None, language: str, typed: str, *values: Any) -> list[Any]:
            desk = desk or self.desks.at("")
            try:
                if commits:
                    desk.commit(typed)
                message = call(desk, *values) or ""
            except Exception as error:
                return [*self._failed(desk, language, error), *(self.gr.skip() for _ in empties)]
            return [*self._view(desk, language, message), *("" for _ in empties)]

        listener(
            handle,
            [self.desk, self.speaks, self.text, *inputs],
            [*self._shown, *empties],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
        )

    def _on_pick(self, component: Any, call: Callable[[Desk, int], None], *, commits: bool = True) -> None:
        """Lets a click on a part of our own HTML call ``call(desk, number)``."""
        gr = self.gr

        def handle(desk: Desk | None, language: str, typed: str, event: gradio.EventData) -> list[Any]:
            desk = desk or self.desks.at("")
            try:
                number = event._data.get("number") if isinstance(event._data, dict) else None
                if not isinstance(number, int):
                    raise ConfigError(f"a click on {number!r}; expected a number")
                if commits:
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
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
        )

    def _on_long(
        self, listener: Callable[..., Any], begin: Callable[..., Iterator[None]], inputs: Sequence[Any] = ()
    ) -> None:
        """Lets an event begin what takes long, and shows it grow."""

        def handle(desk: Desk | None, language: str, typed: str, *values: Any) -> Iterator[list[Any]]:
            desk = desk or self.desks.at("")
            try:
                desk.commit(typed)
                desk.start(begin(desk, *values))
                yield from self._growing(desk, language)
            except Exception as error:
                yield self._failed(desk, language, error)
            else:
                yield self._view(desk, language)

        listener(
            handle,
            [self.desk, self.speaks, self.text, *inputs],
            self._shown,
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
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
            [self.desk, self.speaks],
            [
                self.speaks,
                self.brand,
                self.hint,
                *(one for one, _ in self._worded),
                self.number,
                self.where,
                *self._shown,
            ],
            api_visibility="private",
            show_progress="hidden",
        ).then(None, [self.speaks], None, js="(code) => { document.documentElement.lang = code; }")
        asked = [self.title, self.outline, self.requirements, self.material, self.own, self.number]
        self._on_long(self.generate.click, _generate, asked)
        self._on_long(self.title.submit, _generate, asked)
        self._on_long(self.proceed.click, lambda desk: desk.proceed())
        self._on_long(self.illustrate.click, lambda desk, number: desk.illustrate(_count(number)), [self.number])
        self.stop.click(_stop, [self.desk], None, queue=False, api_visibility="private")
        self._on(self.undo.click, lambda desk: desk.undo())
        self._on(self.redo.click, lambda desk: desk.redo())
        self._on_pick(self.sheet, lambda desk, place: desk.select(place))
        self._on_pick(self.candidates, lambda desk, number: desk.pick(number))
        self._on(self.close.click, lambda desk: desk.select(None))
        self._on(self.apply.click, _save_text, [self.text], commits=False)
        self._on(self.delete.click, lambda desk: desk.delete(), commits=False)
        for name, button in self.operations.items():
            self._on(button.click, _proposing(name), [self.support])
        self._on(self.accept.click, lambda desk, text: desk.accept(text), [self.proposal])
        self._on(self.discard.click, lambda desk: desk.discard())
        where = [self.insert_text, self.where]
        self._on(
            self.insert_write.click,
            lambda desk, text, where: desk.propose("insert", text, where == "after"),
            where,
            empties=[self.insert_text],
        )
        self._on(
            self.insert_own.click,
            lambda desk, text, where: desk.insert(text, where == "after"),
            where,
            empties=[self.insert_text],
        )
        self._on(self.add.click, lambda desk: desk.add_picture())
        self._on(self.search.click, lambda desk, caption: desk.search(caption), [self.caption])
        self._on(self.caption.submit, lambda desk, caption: desk.search(caption), [self.caption])
        self._on(self.remove.click, lambda desk: desk.remove_picture())
        self._on(self.upload.upload, lambda desk, file: desk.place_picture(file), [self.upload])
        for button in (self.open, self.open_first):
            self._on(button.upload, self._open, [button, self.speaks], commits=False)
        for kind, button in self.exports.items():
            self._connect_export(kind, button)

    def _connect_export(self, kind: str, button: Any) -> None:
        def handle(desk: Desk | None, language: str, typed: str) -> list[Any]:
            desk = desk or self.desks.at("")
            try:
                desk.commit(typed)
                link, name = self.downloads.make(KINDS[kind], desk)
            except Exception as error:
                return [*self._failed(desk, language, error), ""]
            return [*self._view(desk, language, words(language)["saved"].format(name)), link]

        button.click(
            handle,
            [self.desk, self.speaks, self.text],
            [*self._shown, self.link],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
        ).then(None, [self.link], None, js=_FETCH)

    def _arrive(self, token: str, language: str) -> Iterator[list[Any]]:
        """A page was opened: finds its desk, and goes on showing what runs there."""
        desk = self.desks.at(str(token)[:64])
        try:
            for view in self._growing(desk, language):
                yield [desk, *view]
        except Exception as error:
            yield [desk, *self._failed(desk, language, error)]
        else:
            yield [desk, *self._view(desk, language)]

    def _speak(self, desk: Desk | None, language: str) -> list[Any]:
        """Puts in the words of the other language."""
        gr, desk = self.gr, desk or self.desks.at("")
        (language,) = [code for code in WORDS if code != language]
        say = words(language)
        return [
            language,
            _brand(say),
            _hint(say),
            *(gr.update(**{name: say[key] for name, key in worded.items()}) for _, worded in self._worded),
            gr.update(choices=_numbers(say)),
            gr.update(choices=_where(say)),
            *self._view(desk, language),
        ]

    def _open(self, desk: Desk, path: str, language: str) -> str:
        missing = desk.open(path)
        say = words(language)
        return say["opened_without"].format(missing) if missing else say["opened"]


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


def _numbers(say: dict[str, str]) -> list[tuple[str, int]]:
    return [(say["model_decides"], -1), (say["no_pictures"], 0), *((str(n), n) for n in range(1, NUMBERS + 1))]


def _where(say: dict[str, str]) -> list[tuple[str, str]]:
    return [(say["before"], "before"), (say["after"], "after")]


def _brand(say: dict[str, str]) -> str:
    return f'<p class="brand"><strong>vedere</strong> <span>{say["tagline"]}</span></p>'


def _hint(say: dict[str, str]) -> str:
    return f'<div class="hint"><h2>{say["hint_title"]}</h2><p>{say["hint"]}</p></div>'


def theme(gr: Any) -> Any:
    """Gradio's plainest theme with fonts of the reader's system; colours are set by the style sheet."""
    sans = (
        "system-ui",
        "-apple-system",
        "Segoe UI",
        "Roboto",
        "Noto Sans",
        "PingFang SC",
        "Noto Sans CJK SC",
        "sans-serif",
    )
    return gr.themes.Base(font=sans, font_mono=("ui-monospace", "Consolas", "monospace"))


def served_paths() -> Sequence[Path]:
    """Folders that Gradio itself may serve: none."""
    return ()
