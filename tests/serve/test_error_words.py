"""Errors in the visitor's language: which of them have to be translated, that no translation is of another text, and holes."""

import ast
import string
from pathlib import Path
from types import SimpleNamespace

import pytest

import vedere
from vedere.compose.article import Article, Document, Paragraph
from vedere.compose.prompts import Brief
from vedere.errors import ConfigError, VedereError
from vedere.serve.compose_page import ComposePage
from vedere.serve.error_words import _CHINESE, told
from vedere.serve.words import WORDS
from vedere.vision.pixels import open_image

ROOT = Path(vedere.__file__).parent
# What a visitor can cause and sees; the other rooms' errors are those of whoever starts the server.
WHOLE = ("serve/desk", "serve/compose_page", "serve/shelf", "serve/downloads", "compose/editor", "compose/prompts")
ENGLISH = {english for english, _ in _CHINESE}


def text_of(node):
    """A raised text with {} for what is put in; None for a text that is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def raised(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error") and node.args:
            text = text_of(node.args[0])
            if text:
                yield text


@pytest.mark.parametrize("room", WHOLE)
def test_every_error_that_a_visitor_can_cause_is_there(room):
    texts = set(raised(ROOT / f"{room}.py"))
    assert texts
    assert not texts - ENGLISH


def test_every_translation_is_of_a_text_that_is_raised():
    rooms = [path for room in ("serve", "compose", "vision", "infer") for path in (ROOT / room).glob("*.py")]
    assert not ENGLISH - {text for path in rooms for text in raised(path)}


@pytest.mark.parametrize(("english", "chinese"), _CHINESE)
def test_holes_are_filled(english, chinese):
    holes = english.count("{}")
    used = {int(name) for _, name, _, _ in string.Formatter().parse(chinese) if name is not None}
    assert used <= set(range(holes))
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    parts = [f"<{number}>" for number in range(holes)]
    message = english.format(*parts)
    assert told(message, "zh") == chinese.format(*parts)
    assert told(message, "en") == message


def test_reasons_inside_reasons_and_unknown_ones(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    with pytest.raises(VedereError) as error:
        open_image(path)
    whole = f"'x.png' is no picture that can be used: {error.value}"
    assert told(whole, "zh") == f"“x.png”不是可用的图片：'{path}'为空文件；请重新获取"
    assert told("something else", "zh") == "something else"
    with pytest.raises(VedereError) as error:
        Brief(title=" ")
    assert told(str(error.value), "zh") == "文章没有标题；请填写标题，或用首行说明主题"
    with pytest.raises(VedereError) as error:
        Document.new(Article(title="x", paragraphs=(Paragraph(text="a"),))).undo()
    assert told(str(error.value), "zh") == "没有可撤销的操作：这是文章的最初状态"
    assert told("a {} b", "zh") == "a {} b"
    assert set(WORDS) == {"en", "zh"}


def test_the_page_says_it_in_its_frame(capsys):
    page = SimpleNamespace(_view=lambda desk, language, message, wrong: message)
    error = ConfigError("no paragraph is selected; click one first")
    failed = ComposePage._failed
    assert failed(page, object(), "zh", error) == "操作未成功：未选中段落；请先点击某一段。内容没有丢失。"
    assert failed(page, object(), "en", error).startswith(
        "That did not work: no paragraph is selected; click one first."
    )
    assert "服务器意外出错（KeyError）" in failed(page, object(), "zh", KeyError("x"))
