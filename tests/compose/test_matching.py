"""Pictures by the text itself: what is searched for, where pictures stand, and that no model is asked."""

import pytest
from composing import Memory, Script, article, picture
from hypothesis import given
from hypothesis import strategies as st

from vedere.compose.article import Document, Illustration
from vedere.compose.editor import Editor
from vedere.compose.matching import Match, matched, steps_for
from vedere.compose.plain_prompts import plain_style
from vedere.compose.prompts import FIRST, SECOND, Brief
from vedere.compose.steps import Draft, OwnPictures, run

EN = plain_style("en")


class Exact:
    """A gallery that finds a picture by a word of its caption in the query, and nothing by a query of over 40 characters."""

    def __init__(self, *pictures):
        self.pictures, self.queries = pictures, []

    def search(self, caption, count, exclude):
        self.queries.append(caption)
        if len(caption) > 40:
            return []
        left = [one for one in self.pictures if one.id not in exclude]
        return [one for one in left if set(one.caption.lower().split()) & set(caption.lower().strip(".!").split())][
            :count
        ]


BEAR, CAT, HAT = picture("bear", "a brown bear"), picture("cat", "the black cat"), picture("hat", "red hat")
STORY = (
    "It was a long and warm day of the early summer. Bear tracks! We saw a bear. It went away.",
    "Nothing happened for many hours, and nobody said anything at all.",
    "The cat slept.",
)


def placed(draft):
    return [(place, [one.id for one in spot.candidates], spot.caption) for place, spot in draft.article.spots()]


def test_a_paragraph_is_searched_for_and_then_its_sentences():
    gallery = Exact(BEAR)
    query, found = matched(gallery, STORY[0], 4, frozenset(), 200)
    assert (query, found) == ("Bear tracks!", (BEAR,))
    assert gallery.queries == [STORY[0], "It was a long and warm day of the early summer.", "Bear tracks!"]
    assert matched(gallery, STORY[0], 4, frozenset({"bear"}), 200) == (STORY[0], ())
    assert matched(Memory(BEAR), "熊。猫！", 4, frozenset(), 200)[0] == "熊。猫！"
    chinese = Exact(picture("x", "猫"))
    matched(chinese, "长" * 41 + "。山！猫。", 4, frozenset(), 200)
    assert chinese.queries[1:] == ["长" * 41 + "。", "山！", "猫。"]  # Chinese sentences have no blank between them


@given(st.text(max_size=80), st.integers(1, 30))
def test_no_query_is_empty_or_too_long(text, longest):
    gallery = Exact()
    matched(gallery, text, 4, frozenset(), longest)
    assert all(0 < len(query) <= longest for query in gallery.queries)
    assert len(set(gallery.queries)) == len(gallery.queries)


def test_places_are_where_something_was_found_and_are_captioned_by_it():
    made = Match(Exact(BEAR, CAT, HAT), EN)(Draft(brief=Brief(title="t"), article=article(*STORY)))
    assert placed(made) == [(0, ["bear"], "a brown bear"), (2, ["cat"], "the black cat")]
    assert [event.note for event in made.log] == [
        "paragraph 0 itself was searched for: Bear tracks!",
        "paragraph 2 itself was searched for: The cat slept.",
    ]


def test_a_number_is_spread_over_the_text_and_what_is_missing_is_said():
    drafts = Draft(brief=Brief(title="t"), article=article("A bear.", "A cat.", "A hat."))
    one = Match(Exact(BEAR, CAT, HAT), EN, 1)(drafts)
    assert [place for place, _ in one.article.spots()] == [1]  # the middle of three
    made = Match(Exact(BEAR), EN, 2)(drafts)
    assert [place for place, _ in made.article.spots()] == [0]
    assert made.log[-1].note == "no suitable picture was found by the text: 1 of 2 places stays empty"
    none = Match(Exact(), EN)(drafts)
    assert none.article == drafts.article
    assert none.log[-1].note == "no suitable picture was found by the text: every place stays empty"


def test_places_that_are_there_stay_and_no_picture_is_shown_twice():
    there = Illustration(caption="x", candidates=(CAT,), selected=0)
    given_article = article("A cat.", "The cat.", "A bear.").with_illustration(0, there)
    made = Match(Exact(BEAR, CAT), EN)(Draft(brief=Brief(title="t"), article=given_article))
    assert placed(made) == [(0, ["cat"], "x"), (2, ["bear"], "a brown bear")]


def test_the_users_own_pictures_are_spread_and_each_stands_once():
    own = OwnPictures((BEAR, CAT))
    model = Script(write="One.\nTwo.\nThree.\nFour.")
    steps = steps_for(model, own, EN, sees=False, places=False)
    made = run(steps, Draft.of(Brief(title="t")))
    assert [place for place, _ in made.article.spots()] == [1, 3]
    assert [one.id for one in made.article.pictures()] == ["bear", "cat"]
    assert [prompt.step for prompt in model.prompts] == ["write"]


@pytest.mark.parametrize(
    ("sees", "places", "asked"),
    [
        (True, True, ["write", "spot", "caption", "select"]),
        (False, True, ["write", "spot", "caption"]),
        (True, False, ["write", "select"]),
        (False, False, ["write"]),
    ],
)
def test_a_model_is_asked_only_what_it_can(sees, places, asked):
    pictures = [picture(name, f"bear {name}") for name in "abcd"]
    model = Script(write="A bear.", spot="<Seg0>", caption="bear", select="B")
    made = run(steps_for(model, Exact(*pictures), EN, sees=sees, places=places), Draft.of(Brief(title="t")))
    assert [prompt.step for prompt in model.prompts] == asked
    assert [one.id for one in made.article.pictures()] == ["b" if sees else "a"]


def test_no_pictures_are_none():
    model = Script(write="A bear.")
    made = run(steps_for(model, Exact(BEAR), EN, number=0, places=False), Draft.of(Brief(title="t")))
    assert not made.article.spots()


@pytest.mark.parametrize("style", [FIRST, SECOND, EN])
def test_a_picture_is_added_without_asking(style):
    editor = Editor(Document.new(article(*STORY)), Script(), style, Exact(BEAR, CAT), sees=False, places=False)
    editor.add_picture(0)
    editor.add_picture(1)
    (_, bear), (_, nothing) = editor.article.spots()
    assert (bear.picture.id, bear.caption, bear.chosen_by) == ("bear", "a brown bear", "retrieval")
    assert (nothing.picture, nothing.note) == (None, "no suitable picture was found")
    assert nothing.caption == STORY[1][: style.query_limit]
    editor.document.undo()
    editor.document.undo()
    assert not editor.article.spots()
