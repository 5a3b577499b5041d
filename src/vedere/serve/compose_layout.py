"""What is where on the page for composing: Gradio's components, and the keys of the words on them."""

from __future__ import annotations

from typing import Any

from vedere.errors import ConfigError
from vedere.serve.words import words

NUMBERS = 15  # most pictures that may be asked for, as in the published demo

_DAILY = (3600, 86400)  # uploads that Gradio keeps: looked at every hour, removed after a day and when the server ends
_CLICKS = """
let follow = false;
element.addEventListener("click", (event) => {
  const pick = event.target.closest("[data-pick]");
  const block = event.target.closest("[data-place]");
  if (pick) trigger("click", {number: Number(pick.dataset.pick)});
  else if (block && !String(getSelection())) {
    follow = true;
    trigger("click", {number: Number(block.dataset.place)});
  }
});
watch("value", () => {
  globalThis.vedereTaken();
  // where the panel covers the lower half, the selected paragraph moves up
  const chosen = follow && matchMedia("(max-width: 68rem)").matches && element.querySelector(".selected");
  if (chosen) chosen.scrollIntoView({block: "start", behavior: "smooth"});
  follow = false;
});
"""


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


def theme() -> Any:
    """Gradio's plainest theme with fonts of the reader's system; colours are set by the style sheet."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC", "Noto Sans CJK SC")
    return needs_gradio().themes.Base(font=(*sans, "sans-serif"), font_mono=("ui-monospace", "Consolas", "monospace"))


class Layout:
    """The components of the page, by what they are for.

    Attributes:
        blocks: The page as Gradio's object; events are connected within it.
        worded: Components with their words: property -> key.
    """

    def __init__(self, language: str, tuned: bool) -> None:
        """Lays the page out.

        Args:
            language: What it speaks at first.
            tuned: Whether the model operates on paragraphs.

        Raises:
            ConfigError: Gradio is not installed.
        """
        self.gr = needs_gradio()
        self.language, self.tuned = language, tuned
        self.worded: list[tuple[Any, dict[str, str]]] = []
        with self.gr.Blocks(
            title="vedere compose", analytics_enabled=False, fill_width=True, delete_cache=_DAILY
        ) as self.blocks:
            self._lay_out(words(language))

    def _made(self, kind: Any, /, *args: Any, say: dict[str, str], **options: Any) -> Any:
        """A component whose words are known by their keys, so that another language can be put in."""
        table = words(self.language)
        made = kind(*args, **{name: table[key] for name, key in say.items()}, **options)
        self.worded.append((made, say))
        return made

    def _button(self, key: str, **options: Any) -> Any:
        return self._made(self.gr.Button, say={"value": key}, elem_id=f"do-{key.replace('_', '-')}", **options)

    def _box(self, key: str, lines: int = 1, hint: str = "", **options: Any) -> Any:
        say = {"label": key} | ({"placeholder": hint} if hint else {})
        return self._made(self.gr.Textbox, say=say, lines=lines, elem_id=f"box-{key.replace('_', '-')}", **options)

    def _lay_out(self, say: dict[str, str]) -> None:
        gr = self.gr
        self.desk, self.speaks = gr.State(None), gr.State(self.language)
        self.token, self.link, self.code = (gr.Textbox(visible=False) for _ in range(3))
        with gr.Row(elem_id="top"):
            self.brand = gr.HTML(brand(say), elem_id="brand")
            self.switch = self._button("language", size="sm", variant="secondary")
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="main"):
                self._lay_out_brief(say)
                self.tools = gr.Column(visible=False, elem_id="tools")
                with self.tools:
                    self._lay_out_tools()
                self.status = gr.HTML("", elem_id="status")
                self.stop = self._button("stop", size="sm", variant="stop", visible=False)  # the brief folds away
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
                    choices=numbers(say),
                    value=-1,
                    filterable=False,
                    min_width=180,
                )
                self.generate = self._button("generate", variant="primary", interactive=False)
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
        self.hint = gr.HTML(hint(say), elem_id="hint")
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
        tuned = self.tuned
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
                gr.Radio, say={"label": "where"}, choices=where(say), value="after", elem_id="where"
            )
            self.insert_text = self._box("insert_text", 2, "insert_hint", max_lines=8)
            with gr.Row():
                self.insert_write = self._button("insert_write", size="sm", visible=tuned)
                self.insert_own = self._button("insert_own", size="sm")


def numbers(say: dict[str, str]) -> list[tuple[str, int]]:
    """Choices of how many pictures."""
    return [(say["model_decides"], -1), (say["no_pictures"], 0), *((str(n), n) for n in range(1, NUMBERS + 1))]


def where(say: dict[str, str]) -> list[tuple[str, str]]:
    """Choices of where a paragraph is put."""
    return [(say["before"], "before"), (say["after"], "after")]


def brand(say: dict[str, str]) -> str:
    """The page's name."""
    return f'<p class="brand"><strong>vedere</strong> <span>{say["tagline"]}</span></p>'


def hint(say: dict[str, str]) -> str:
    """What the panel says while nothing is selected."""
    return f'<div class="hint"><h2>{say["hint_title"]}</h2><p>{say["hint"]}</p></div>'
