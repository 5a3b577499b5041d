"""The article as a value and the document with its history."""

import json

import pytest
from composing import article, picture
from hypothesis import given
from hypothesis import strategies as st

from vedere.compose.article import Document, Illustration, paragraphs_of
from vedere.errors import ConfigError

TEXTS = ("one", "two", "three")
SPOT = Illustration(
    caption="雪", candidates=(picture("a"), picture("b", licence="CC0-1.0")), selected=1, chosen_by="model"
)


@given(
    st.lists(st.tuples(st.sampled_from(["text", "insert", "picture", "undo", "redo"]), st.integers(0, 2)), max_size=12)
)
def test_history_is_a_list_of_states(steps):
    document = Document.new(article(*TEXTS))
    model, at = [document.article], 0
    for number, (kind, place) in enumerate(steps):
        if kind == "undo" and at:
            at -= 1
            document.undo()
        elif kind == "redo" and at + 1 < len(model):
            at += 1
            document.redo()
        elif kind in ("text", "insert", "picture"):
            edits = {
                "text": lambda a, place=place, number=number: a.with_text(place, f"text {number}"),
                "insert": lambda a, place=place, number=number: a.with_paragraph(place, f"new {number}"),
                "picture": lambda a, place=place: a.with_illustration(place, SPOT),
            }
            changed = edits[kind](model[at])
            if changed != model[at]:
                model[at + 1 :] = [changed]
                at += 1
            document.change(kind, edits[kind])
        assert document.article == model[at]
    assert [state.article for state in document.states] == model


def test_nothing_is_lost_on_disk(tmp_path):
    document = Document.new(article(*TEXTS))
    document.change("picture 1", lambda a: a.with_illustration(1, SPOT))
    document.change("remove 0", lambda a: a.with_text(0, ""))
    document.undo()
    document.save(tmp_path / "article.json")
    again = Document.load(tmp_path / "article.json")
    assert again == document
    assert again.article.pictures() == (picture("b", licence="CC0-1.0"),)
    assert again.article.shown() == {"a", "b"}
    assert [paragraph.text for paragraph in again.redo().paragraphs] == ["two", "three"]
    assert again.states[1].action == "picture 1"


def test_edits_clean_their_text():
    edited = article(*TEXTS).with_text(1, " a\nb ")
    assert edited.at(1).text == "a b"
    assert [p.text for p in article(*TEXTS).with_text(1, " \n").paragraphs] == ["one", "three"]
    assert [p.text for p in article(*TEXTS).with_paragraph(3, "end").paragraphs] == [*TEXTS, "end"]
    kept = article(*TEXTS).with_illustration(1, SPOT).with_text(1, "other")
    assert kept.at(1).illustration == SPOT


def test_written_text_becomes_at_most_sixty_paragraphs():
    assert [p.text for p in paragraphs_of("a\n\n\n b \n")] == ["a", "b"]
    assert len(paragraphs_of("x\n" * 100)) == 60


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda a: a.with_text(3, "x"), "paragraph 3 of an article of 3; expected 0 to 2"),
        (lambda a: a.with_paragraph(4, "x"), "place 4 in an article of 3 paragraphs; expected 0 to the number"),
        (lambda a: a.with_paragraph(0, "\n"), "an empty paragraph was to be inserted; give it some text"),
        (lambda a: Illustration(selected=0), "candidate 0 of 0 was chosen"),
        (lambda a: Document.new(a).undo(), "nothing to undo: this is the first state"),
        (lambda a: Document.new(a).redo(), "nothing to redo: this is the newest state"),
    ],
)
def test_edits_that_are_refused(act, message):
    with pytest.raises(ConfigError, match=message):
        act(article(*TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data | {"at": 7}, r"state 7 of 1; the file was changed by hand: correct 'at'"),
        (lambda data: data | {"version": 2}, r"version 2 of an article; expected 1"),
        (lambda data: data | {"stat": []}, r"'stat'|stat"),
        (lambda data: [], r"version None of an article"),
    ],
)
def test_files_that_are_no_articles(tmp_path, change, message):
    path = tmp_path / "article.json"
    Document.new(article("x")).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        Document.load(path)
    assert "article.json" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); check the path"):
        Document.load(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match=r"is no JSON .*; give a file that `Document.save` wrote"):
        Document.load(tmp_path / "x.json")


def test_a_title_is_one_line_and_never_empty():
    made = article("a").with_title(" One\ntwo ")
    assert (made.title, made.paragraphs) == ("One two", article("a").paragraphs)
    with pytest.raises(ConfigError, match="an article without a title; give it some words"):
        made.with_title(" \n")


def test_halves_of_characters_in_a_file_become_question_marks(tmp_path):
    path = tmp_path / "a.json"
    Document.new(article("HALF", title="t")).save(path)
    path.write_text(path.read_text("utf-8").replace("HALF", "a\\ud800b"), "utf-8")
    loaded = Document.load(path)
    assert loaded.article.at(0).text == "a?b"
    loaded.save(path)
