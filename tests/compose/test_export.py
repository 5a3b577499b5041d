"""Markdown, HTML and DOCX: nothing written becomes markup, pictures and credits come along."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from composing import article, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vedere.compose.article import Illustration
from vedere.compose.export import credits_of, markdown, page, save_docx, save_json, save_markdown, save_page, structured
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


def test_plain_data_names_the_chosen_picture_and_what_was_offered(illustrated, tmp_path):
    save_json(illustrated, tmp_path / "article.json")
    data = json.loads((tmp_path / "article.json").read_text(encoding="utf-8"))
    assert data == structured(illustrated)
    assert (data["title"], [section["text"] for section in data["sections"]]) == (EVIL, ["first", EVIL, "last"])
    first, second, third = (section.get("image") for section in data["sections"])
    assert second is None
    assert (first["id"], first["selected"], first["caption"]) == ("p", 0, "断桥 <残雪>")
    assert first["file"] == first["candidates"][0]["file"] == str(tmp_path / "雪 桥.PNG")
    assert first["candidates"][0]["licence"] == "CC-BY-4.0"
    assert (third["id"], third["file"], third["selected"]) == (None, None, None)
    assert data["credits"] == ["A. Person, example.org/7, CC-BY-4.0"]


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


def reopened(path):
    """A written document as (style, text) of each paragraph, and the bytes of its pictures in order."""
    import docx

    document = docx.Document(str(path))
    paragraphs = [(paragraph.style.name, paragraph.text) for paragraph in document.paragraphs]
    relations = [shape._inline.graphic.graphicData.pic.blipFill.blip.embed for shape in document.inline_shapes]
    return paragraphs, [document.part.related_parts[relation].blob for relation in relations]


def test_docx_has_text_pictures_and_credits(illustrated, tmp_path):
    save_docx(illustrated, tmp_path / "article.docx")
    paragraphs, pictures = reopened(tmp_path / "article.docx")
    assert paragraphs == [
        ("Title", EVIL),
        ("Normal", "first"),
        ("Normal", ""),  # holds the picture
        ("Caption", "断桥 <残雪>\nA. Person, example.org/7, CC-BY-4.0"),
        ("Normal", EVIL),
        ("Normal", "last"),
    ]
    assert pictures == [(tmp_path / "雪 桥.PNG").read_bytes()]


@pytest.mark.parametrize("kind", ["webp", "gif", "bmp", "tiff", "jpeg"])
def test_docx_takes_pictures_of_any_kind(illustrated, tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    Image.new("RGB", (4, 3), "red").save(path, kind)
    shown = picture("q", path=str(path))
    made = illustrated.with_illustration(0, Illustration(caption="c", candidates=(shown,), selected=0))
    save_docx(made, tmp_path / "article.docx")
    _, (data,) = reopened(tmp_path / "article.docx")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (4, 3)


def test_docx_of_a_tall_picture_fits_a_page(illustrated, tmp_path):
    path = tmp_path / "tall.png"
    Image.new("RGB", (40, 4000)).save(path)
    shown = picture("q", path=str(path))
    save_docx(
        illustrated.with_illustration(0, Illustration(candidates=(shown,), selected=0)), tmp_path / "article.docx"
    )
    import docx

    (shape,) = docx.Document(str(tmp_path / "article.docx")).inline_shapes
    assert shape.height.inches <= 8
    assert shape.width.inches / shape.height.inches == pytest.approx(0.01, rel=0.01)


def test_docx_drops_control_characters_that_xml_cannot_hold(illustrated, tmp_path):
    save_docx(illustrated.with_text(0, "a\x00b\x0bc\ud800d"), tmp_path / "article.docx")
    paragraphs, _ = reopened(tmp_path / "article.docx")
    assert paragraphs[1][1] == "a b c d"


def test_docx_names_a_picture_that_cannot_be_read(illustrated, tmp_path):
    (tmp_path / "雪 桥.PNG").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"picture 'p' \(.*PNG\) cannot be read"):
        save_docx(illustrated, tmp_path / "article.docx")
    assert not (tmp_path / "article.docx").exists()
