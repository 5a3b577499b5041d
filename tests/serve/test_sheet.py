"""The article as HTML: texts stay texts, whatever they hold; pictures are named by key only."""

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.compose.article import Article, Illustration, Paragraph, Picture
from vedere.compose.prompts import SECOND, Brief
from vedere.compose.scripted import ScriptedModel
from vedere.compose.steps import Draft, Find, OwnPictures, Select
from vedere.serve.sheet import candidates, noted, sheet, status
from vedere.serve.shelf import Shelf
from vedere.serve.words import WORDS, words

HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["<script>alert(1)</script>", '" onload="x', "' onload='x", "</p></article>", "<!--", "&lt;b&gt;", "${1}"]
    ),
)
EN = words("en")
NOTES = (
    "no suitable picture was found",
    "every candidate already stands in the article",
    "the model answered 'B\\n{}' twice or the like: the first picture found was taken",
)
TAGS = {
    "article",
    "header",
    "h1",
    "section",
    "p",
    "button",
    "figure",
    "figcaption",
    "img",
    "small",
    "div",
    "strong",
    "span",
}


class Read(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.data = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.data.append(data)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from([None, -1, 0]), st.sampled_from(["", "write", "find"]))
def test_texts_never_become_markup(title, text, caption, credit, selected, stage):
    picture = Picture(id="<i>", path="/x/<y>", caption=caption, attribution=credit)
    spots = (
        Illustration(caption=caption, candidates=(picture,), selected=0),
        Illustration(caption=caption, note=credit),
    )
    article = Article(title=title, paragraphs=tuple(Paragraph(text=text, illustration=spot) for spot in spots))
    shelf = Shelf("uploads")
    made = sheet(article, shelf, EN, selected=selected, stage=stage)
    read = Read(made + candidates(spots[0], shelf, EN) + candidates(spots[1], shelf, EN))
    assert set(read.tags) <= TAGS
    assert not [name for name in read.attributes if name.startswith("on")]
    if "\r" not in title + text and "\0" not in title + text:
        assert title in read.data or not title
        assert text in read.data or not text
    assert "/x/" not in made  # no path of the server
    assert made.count("<img ") == 1


def test_what_is_missing_is_said():
    article = Article(title="t", paragraphs=(Paragraph(text="a", illustration=Illustration(caption="a lake")),))
    shelf = Shelf("uploads")
    assert "a lake" in sheet(article, shelf, EN)
    assert EN["no_picture"] in sheet(article, shelf, EN)
    assert EN["looking"] in sheet(article, shelf, EN, stage="find")
    assert EN["no_picture"] in candidates(Illustration(caption="a lake"), shelf, EN)


def test_the_status_is_read_aloud():
    assert 'role="status"' in status("write", EN)
    assert EN["stage_write"] in status("write", EN)
    assert EN["working"] in status("a step of somebody else", EN)
    assert 'role="alert"' in status("", EN, "<b>", wrong=True)
    assert "<b>" not in status("", EN, "<b>", wrong=True)
    assert status("", EN) == ""


def test_both_languages_say_everything_and_take_the_same_values():
    for key, english in WORDS["en"].items():
        chinese = WORDS["zh"][key]
        assert english.strip()
        assert chinese.strip()
        assert english.count("{}") == chinese.count("{}"), key
        assert html.escape(english) == english.replace("'", "&#x27;")


@pytest.mark.parametrize("note", NOTES, ids=[note[:20] for note in NOTES])
def test_a_note_of_the_steps_speaks_the_visitors_language(note):
    spot = Illustration(caption="雪", note=note)
    assert noted(spot, EN) == note
    chinese = noted(spot, words("zh"))
    assert chinese != note
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert ("'B\\n{}'" in chinese) == ("answered" in note)
    assert noted(Illustration(note="somebody else's"), words("zh")) == "somebody else's"


def test_those_notes_are_the_ones_that_steps_write():
    pictures = (Picture(id="a", path="a"), Picture(id="b", path="b"))
    article = Article(title="t", paragraphs=tuple(Paragraph(text=text) for text in "xyz"))
    article = article.with_illustration(0, Illustration(caption="x", candidates=pictures[:1], selected=0))
    article = article.with_illustration(1, Illustration(caption="y", candidates=pictures[:1]))
    article = article.with_illustration(2, Illustration(caption="z"))
    draft = Find(OwnPictures(()), SECOND)(Draft(brief=Brief(title="t"), article=article))
    draft = Select(ScriptedModel({"select": "?"}), SECOND)(draft)
    other = article.with_illustration(1, Illustration(caption="y", candidates=(*pictures, Picture(id="c", path="c"))))
    assert [draft.article.at(place).illustration.note for place in (2, 1)] == list(NOTES[:2])
    asked = Select(ScriptedModel({"select": "?\n{}"}), SECOND)(Draft(brief=Brief(title="t"), article=other))
    assert asked.article.at(1).illustration.note == NOTES[2].replace("B", "?")
