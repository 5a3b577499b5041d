"""What a visitor can do, without a page: every method does what it says, or says why not and leaves all as it was."""

import copy
import threading

import pytest
from desk_studio import ANSWERS, chosen, desk, texts, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.compose.article import Article, Document
from vedere.compose.prompts import FIRST, Brief
from vedere.errors import ConfigError, MediaError, PromptError, VedereError


def test_an_article_grows_and_is_one_state(tmp_path):
    at = desk(tmp_path)
    seen = []
    for _ in at.generate(Brief(title="A title")):
        assert at.running
        seen.append((at.stage, texts(at)))
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["write", "spot", "caption", "find", "select"]
    assert ("write", ["One two."]) in seen  # the first paragraph before the others
    assert (at.running, at.stage, at.preview) == (False, "", None)
    assert texts(at) == ["One two.", "Three four.", "Five six."]
    assert chosen(at) == ["1", "4"]  # B of the first four, A of the next four
    assert len(at.document.states) == 1


def test_a_second_article_is_a_state_after_the_first(tmp_path):
    at = written(tmp_path, write=["One.", "Another."])
    list(at.generate(Brief(title="Other")))
    assert at.article.title == "Other"
    at.undo()
    assert at.article.title == "A title"


@pytest.mark.parametrize("step", ["spot", "caption", "select"])
def test_what_was_made_before_an_error_stays(tmp_path, step):
    at = desk(tmp_path, **{step: {"error": "no memory"}})
    with pytest.raises(VedereError, match="no memory"):
        list(at.generate(Brief(title="A title")))
    assert texts(at) == ["One two.", "Three four.", "Five six."]
    assert not at.running


def test_an_error_at_once_changes_nothing(tmp_path):
    at = written(tmp_path, write=["One.", {"error": "gone"}])
    before = at.article
    with pytest.raises(VedereError, match="gone"):
        list(at.generate(Brief(title="Other")))
    assert at.article == before
    assert len(at.document.states) == 1
    assert at.brief.title == "A title"  # going on with the old article is still asked by the old brief


def test_stopping_keeps_what_was_written(tmp_path):
    at = desk(tmp_path)
    work = at.generate(Brief(title="A title"))
    while at.preview is None or len(at.preview.paragraphs) < 2:
        next(work)
    at.stop()
    assert list(work) == []
    assert len(texts(at)) == 2
    assert not at.running
    assert chosen(at) == []


def test_a_thread_does_the_work_and_can_be_followed_by_several(tmp_path):
    at = desk(tmp_path)
    at.start(at.generate(Brief(title="A title")))
    other = threading.Thread(target=lambda: list(at.follow(pause=0)))
    other.start()
    for _ in at.follow(pause=0):
        pass
    other.join(timeout=10)
    assert not at.running
    assert len(texts(at)) == 3


def test_the_failure_of_a_thread_is_raised_once(tmp_path):
    at = desk(tmp_path, write={"error": "gone"})
    at.start(at.generate(Brief(title="A title")))
    with pytest.raises(VedereError, match="gone"):
        list(at.follow(pause=0))
    assert list(at.follow(pause=0)) == []
    assert at.article is None


def test_nothing_else_happens_while_something_runs(tmp_path):
    at = written(tmp_path, write="One.\nTwo.")
    at.select(0)
    work = at.generate(Brief(title="Other"))
    next(work)
    for attempt in (
        lambda: at.commit("typed"),
        at.undo,
        at.delete,
        lambda: at.pick(0),
        lambda: at.propose("rewrite"),
        lambda: next(at.generate(Brief(title="Third"))),
    ):
        with pytest.raises(ConfigError, match="being written; wait for its end, or stop it"):
            attempt()
    list(work)
    assert at.article.title == "Other"


def test_going_on_writing_and_stopping_it(tmp_path):
    at = written(tmp_path)
    list(at.proceed())
    assert texts(at)[-1] == "Seven."
    at.undo()
    assert len(texts(at)) == 3


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("expand", "Three four, and more."),
        ("rewrite", "Four three."),
        ("abbreviate", "Three."),
        ("regenerate", "Seven."),
    ],
)
def test_a_proposal_changes_nothing_until_it_is_accepted(tmp_path, operation, expected):
    at = written(tmp_path)
    at.select(1)
    at.propose(operation)
    assert (at.proposal.text, texts(at)[1]) == (expected, "Three four.")
    at.accept("Changed by hand.")
    assert (at.proposal, texts(at)[1]) == (None, "Changed by hand.")
    at.undo()
    assert texts(at)[1] == "Three four."


@pytest.mark.parametrize(("after", "place"), [(False, 1), (True, 2)])
def test_paragraphs_are_put_in_before_and_after(tmp_path, after, place):
    at = written(tmp_path)
    at.select(1)
    at.propose("insert", "an outline", after)
    at.accept(at.proposal.text)
    assert (at.selected, texts(at)[place], len(texts(at))) == (place, "Between.", 4)
    at.insert("By hand.", after)
    assert texts(at)[at.selected] == "By hand."
    at.delete()
    assert "By hand." not in texts(at)
    assert at.selected is None


def test_what_was_typed_is_taken_over(tmp_path):
    at = written(tmp_path)
    at.commit("nothing is selected")
    assert len(at.document.states) == 1
    at.select(1)
    for typed in (None, "  \n", "Three four."):
        at.commit(typed)
    assert len(at.document.states) == 1
    at.commit("Typed\nin.")
    assert texts(at)[1] == "Typed in."
    at.select(-1)
    at.commit("New title")
    assert at.article.title == "New title"


def test_pictures(tmp_path):
    at = written(tmp_path)
    at.select(0)
    assert [picture.id for picture in at.spot.candidates] == ["0", "1", "2", "3"]
    at.pick(3)
    assert chosen(at) == ["3", "4"]
    at.search("another")
    assert [picture.id for picture in at.spot.candidates] == ["8", "9", "10", "11"]
    at.remove_picture()
    assert at.spot is None
    at.add_picture()
    assert at.spot.caption == "third"
    Image.new("RGB", (8, 8)).save(tmp_path / "my_own-picture.png")
    at.place_picture(tmp_path / "my_own-picture.png")
    assert at.spot.picture.caption == "my own picture"
    assert at.spot.chosen_by == "user"
    assert (tmp_path / "uploads").is_dir()


def test_own_pictures_take_the_place_of_the_gallery(tmp_path):
    at = desk(tmp_path, select="A")
    for name in ("red", "blue"):
        Image.new("RGB", (8, 8), name).save(tmp_path / f"{name}.png")
    at.bring([tmp_path / "red.png", tmp_path / "blue.png", tmp_path / "red.png"])  # the same one twice is one
    assert len(at.own) == 2
    list(at.generate(Brief(title="A title", pictures=at.own)))
    assert [picture.caption for picture in at.article.pictures()] == ["red", "blue"]
    at.select(1)
    at.add_picture()  # all are offered again, and none stands twice
    assert len(at.spot.candidates) == 2
    assert at.spot.note == "every candidate already stands in the article"


def test_a_model_without_eyes_takes_the_first_picture_and_is_not_asked(tmp_path):
    at = written(tmp_path, sees=False, select={"error": "asked"})
    assert chosen(at) == ["0", "4"]
    at.select(1)
    at.add_picture()
    assert at.spot.chosen_by == "retrieval"


def test_no_gallery_and_no_pictures_of_ones_own(tmp_path):
    at = written(tmp_path, gallery=False)
    assert at.article.spots() == ()
    at.select(0)
    for attempt in (at.add_picture, lambda: at.search("x"), lambda: next(at.illustrate())):
        with pytest.raises(
            ConfigError, match="no gallery to search; bring pictures of your own, or start with --gallery"
        ):
            attempt()


def test_pictures_for_a_text_that_is_there(tmp_path):
    at = desk(tmp_path)
    list(at.generate(Brief(title="A title"), number=0))
    assert at.article.spots() == ()
    list(at.illustrate())
    assert chosen(at) == ["1", "4"]
    at.undo()
    assert at.article.spots() == ()


def test_the_first_version_says_that_it_was_not_tuned(tmp_path):
    at = written(tmp_path, style=FIRST)
    at.select(0)
    with pytest.raises(ConfigError, match="was not tuned to expand"):
        at.propose("expand")
    assert not at.running


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda at: at.undo(), ConfigError, "nothing to undo"),
        (lambda at: at.delete(), ConfigError, "no paragraph is selected; click one first"),
        (lambda at: at.select(9), ConfigError, "paragraph 9 of an article of 3"),
        (lambda at: at.accept("x"), ConfigError, "there is no proposal"),
        (lambda at: (at.select(0), at.search(" ")), PromptError, "a search without words"),
        (lambda at: (at.select(0), at.pick(7)), ConfigError, "candidate 7 of 4"),
        (lambda at: (at.select(1), at.pick(0)), ConfigError, "paragraph 1 has no picture"),
        (lambda at: (at.select(0), at.add_picture()), ConfigError, "has a picture already"),
        (lambda at: (at.select(0), at.propose("insert", " ")), PromptError, "has no outline"),
        (lambda at: at.bring(["x.png"] * 11), ConfigError, "11 pictures of your own; expected at most 10"),
        (lambda at: at.bring([__file__]), MediaError, "'test_desk.py' is no picture that can be used"),
        (lambda at: at.open("nothing.json"), ConfigError, "cannot be read"),
    ],
)
def test_bad_input_is_explained_and_changes_nothing(tmp_path, attempt, error, message):
    at = written(tmp_path)
    before = copy.deepcopy(at.document.states)
    with pytest.raises(error, match=message):
        attempt(at)
    assert at.document.states == before
    assert not at.running


def test_without_an_article(tmp_path):
    at = desk(tmp_path)
    for attempt in (at.undo, at.redo, lambda: at.select(0), lambda: next(at.proceed())):
        with pytest.raises(ConfigError, match="there is no article yet"):
            attempt()


def test_an_emptied_proposal_is_not_a_deletion(tmp_path):
    at = written(tmp_path)
    at.select(1)
    at.propose("rewrite")
    with pytest.raises(ConfigError, match="the proposal was emptied; discard it, or delete"):
        at.accept(" ")
    assert at.proposal is not None
    at.discard()
    assert at.proposal is None


def test_saved_and_opened(tmp_path):
    at = written(tmp_path)
    at.select(1)
    at.commit("Changed.")
    at.document.save(tmp_path / "a.json")
    other = desk(tmp_path)
    assert other.open(tmp_path / "a.json") == 0
    assert other.article == at.article
    other.undo()
    assert texts(other)[1] == "Three four."


STEPS = st.one_of(
    st.tuples(st.just("select"), st.integers(-1, 6)),
    st.tuples(st.just("commit"), st.text(max_size=8)),
    st.tuples(st.just("pick"), st.integers(0, 4)),
    st.tuples(st.just("search"), st.text(max_size=4)),
    st.tuples(st.just("propose"), st.sampled_from(["expand", "rewrite", "abbreviate", "regenerate"])),
    st.tuples(st.just("accept"), st.text(max_size=4)),
    st.tuples(st.just("insert"), st.text(max_size=4), st.booleans()),
    st.sampled_from([("delete",), ("add_picture",), ("remove_picture",), ("undo",), ("redo",), ("discard",)]),
)


@given(st.lists(STEPS, max_size=12))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_clicked_can_be_undone_to_the_beginning(tmp_path, steps):
    at = written(tmp_path, write="One.\nTwo.\nThree.", caption='c"', select="A")
    begin = at.article
    for name, *values in steps:
        before = at.article
        try:
            getattr(at, name)(*values)
        except VedereError:
            assert at.article == before  # refused, and nothing happened
        assert at.selected is None or -1 <= at.selected < len(at.article.paragraphs)
        assert not at.running
    while at.document.at:
        at.undo()
    assert at.article == begin
    assert ANSWERS["write"][0].startswith("One")


def test_the_language_of_the_title_is_that_of_plain_questions(tmp_path):
    from vedere.compose.plain_prompts import plain_style

    at = desk(tmp_path, style=plain_style("en"))
    at.document = Document.new(Article(title="西湖"))
    assert at._editor().style.name == plain_style("zh").name
    at.document = Document.new(Article(title="A lake"))
    assert at._editor().style.name == plain_style("en").name


def test_no_further_place_is_said(tmp_path):
    at = written(tmp_path)
    before = at.article
    with pytest.raises(
        ConfigError, match="no further place for a picture was found; click a paragraph to add one there"
    ):
        list(at.illustrate())
    assert at.article == before
    assert not at.running


def test_an_article_without_a_place_for_pictures_is_no_error_but_said(tmp_path):
    at = written(tmp_path, spot="nowhere")
    assert at.unplaced
    assert at.failure is None
    list(at.proceed())
    assert not at.unplaced  # it concerns the last run
    asked_for_none = desk(tmp_path)
    list(asked_for_none.generate(Brief(title="A title"), 0))
    assert not asked_for_none.unplaced


def test_a_model_that_cannot_place_pictures_is_not_asked_to(tmp_path):
    at = desk(tmp_path, sees=False, places=False, spot={"error": "asked"}, caption={"error": "asked"})
    list(at.generate(Brief(title="A title")))
    assert chosen(at) == ["0", "4", "8"]  # this gallery finds four for every text
    at.select(0)
    at.remove_picture()
    at.add_picture()
    assert len(chosen(at)) == 3
    assert not at.unplaced


def test_a_new_article_selects_nothing_and_going_back_leaves_no_selection_outside(tmp_path):
    at = written(tmp_path, write=["One.\nTwo.", "Other."])
    at.select(1)
    at.propose("rewrite")
    list(at.generate(Brief(title="Other")))
    assert (at.selected, at.proposal) == (None, None)
    at.undo()
    at.select(1)
    at.propose("rewrite")
    at.redo()  # one paragraph
    assert (at.selected, at.proposal) == (None, None)
    at.undo()
    at.select(0)
    at.redo()
    assert at.selected == 0
