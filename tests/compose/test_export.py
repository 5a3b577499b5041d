"""Markdown, HTML and DOCX: nothing written becomes markup, pictures and credits come along."""

import base64
import re
import sys
import types
from html.parser import HTMLParser

import pytest
from composing import article, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vedere.compose.article import Illustration
from vedere.compose.export import credits_of, markdown, page, save_docx, save_markdown, save_page
from vedere.errors import ConfigError, MediaError

EVIL = '<script>alert("x")</script> & </p><img src=x onerror=y>'


@pytest.fixture
def illustrated(tmp_path):
    path = tmp_path / "雪 桥.PNG"
    Image.new("RGB", (4, 3), "red").save(path)
    shown = picture("p", path=str(path), attribution="A. Person", licence="CC-BY-4.0", source="example.org/7")
    spot = Illustration(caption="断桥 <残雪>", candidates=(shown,), selected=0)
    empty = Illustration(caption="nothing found", note="no suitable picture was found")
    return article("first", EVIL, "last", title=EVIL).with_illustration(0, spot).with_illustration(2, empty)


class Seen(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.images += [dict(attrs)] if tag == "img" else []

    def handle_data(self, data):
        self.texts.append(data)


def test_a_page_stands_alone_and_shows_what_was_written(illustrated, tmp_path):
    save_page(illustrated, tmp_path / "out" / "article.html")
    text = (tmp_path / "out" / "article.html").read_text(encoding="utf-8")
    seen = Seen(text)
    assert "script" not in seen.tags
    assert seen.texts.count(EVIL) == 3  # page title, heading, paragraph
    (image,) = seen.images
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data) == (tmp_path / "雪 桥.PNG").read_bytes()
    assert image["alt"] == "断桥 <残雪>"
    assert "A. Person, example.org/7, CC-BY-4.0" in seen.texts
    assert "nothing found" not in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_no_text_becomes_a_tag(title, text):
    made = article(text, title=title)
    assert Seen(page(made)).tags == ["html", "head", "meta", "meta", "title", "style", "body", "h1", "p"]
    assert "<" not in markdown(made)


def test_the_language_of_a_page():
    assert '<html lang="zh">' in page(article("西湖"))
    assert '<html lang="en">' in page(article("A lake", title="Lake"))
    assert '<html lang="zh-TW">' in page(article("x"), language="zh-TW")


def test_markdown_has_its_pictures_beside_it(illustrated, tmp_path):
    path = save_markdown(illustrated, tmp_path / "out")
    text = path.read_text(encoding="utf-8")
    assert sorted(file.name for file in path.parent.iterdir()) == ["article.md", "picture-1.png"]
    assert "![断桥 &lt;残雪&gt;](<picture-1.png>)" in text
    assert "*A. Person, example.org/7, CC-BY-4.0*" in text
    assert "<script" not in text
    assert "nothing found" not in text


def test_markdown_shows_signs_as_they_are():
    text = markdown(article("# no *title*", "- no list", "1. none", "a_b [c](d) `e`"))
    assert r"\# no \*title\*" in text
    assert "\n\\- no list\n" in text
    assert "\n1\\. none\n" in text
    assert r"a\_b \[c\](d) \`e\`" in text


def test_credits_are_named_once(illustrated):
    (credit,) = credits_of(illustrated.with_illustration(1, illustrated.at(0).illustration))
    assert credit == "A. Person, example.org/7, CC-BY-4.0"


def test_a_lost_picture_is_named(illustrated, tmp_path):
    (tmp_path / "雪 桥.PNG").unlink()
    for export in (lambda: page(illustrated), lambda: save_markdown(illustrated, tmp_path / "out")):
        with pytest.raises(
            MediaError, match=r"picture 'p' \(.*PNG\) cannot be read \(No such file.*\); swap it, or put"
        ):
            export()


def test_docx_without_its_package_says_what_to_install(illustrated, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(ConfigError, match=r"pip install 'vedere\[compose\]'"):
        save_docx(illustrated, tmp_path / "article.docx")


def test_docx_has_text_pictures_and_credits(illustrated, tmp_path, monkeypatch):
    """The package itself is not installed here; what it is told is."""
    told = []

    class Document:
        def __getattr__(self, name):
            return lambda *given, **named: told.append((name, *given, *named))

        def save(self, path):
            with open(path, "w") as file:
                file.write("saved")

    monkeypatch.setitem(sys.modules, "docx", types.SimpleNamespace(Document=Document))
    monkeypatch.setitem(sys.modules, "docx.shared", types.SimpleNamespace(Inches=float))
    save_docx(illustrated, tmp_path / "article.docx")
    assert told == [
        ("add_heading", EVIL, 0),
        ("add_paragraph", "first"),
        ("add_picture", str(tmp_path / "雪 桥.PNG"), "width"),
        ("add_paragraph", "断桥 <残雪>\nA. Person, example.org/7, CC-BY-4.0", "style"),
        ("add_paragraph", EVIL),
        ("add_paragraph", "last"),
    ]
    assert (tmp_path / "article.docx").read_text() == "saved"
