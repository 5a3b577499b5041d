"""The user's edits: proposals change nothing, everything else is one state that undo takes back."""

import pytest
from composing import Memory, Script, article, picture

from vedere.compose.article import Document, Illustration
from vedere.compose.editor import Editor
from vedere.compose.prompts import FIRST, SECOND
from vedere.compose.steps import OwnPictures
from vedere.errors import ConfigError

PICTURES = tuple(picture(f"p{number}", "雪") for number in range(9))
SPOT = Illustration(caption="雪", candidates=PICTURES[:4], selected=0, chosen_by="model")


def editor(style=SECOND, gallery=None, **answers):
    document = Document.new(article("一", "二", "三").with_illustration(1, SPOT))
    return Editor(document, Script(**answers), style, gallery or Memory(*PICTURES))


def texts(edited):
    return [paragraph.text for paragraph in edited.article.paragraphs]


@pytest.mark.parametrize(
    ("operation", "step", "part"),
    [
        (lambda e: e.expand(1, "素材"), "expand", "扩写以下段落：二\n基于以下素材：素材"),
        (lambda e: e.rewrite(1), "rewrite", "改写以下段落：二\n基于以下素材："),
        (lambda e: e.abbreviate(1), "abbreviate", "缩写以下段落：二"),
        (lambda e: e.paragraph_between(1, "纲"), "insert", "第一段：一\n第二段：二\n插入段的大纲：纲"),
        (lambda e: e.paragraph_between(0, "纲"), "insert", "第一段：\n第二段：一\n"),
        (lambda e: e.paragraph_between(3, "纲"), "insert", "第一段：三\n第二段：\n"),
    ],
)
def test_the_four_operations_propose_and_change_nothing(operation, step, part):
    edited = editor(**{step: "新的\n段落[UNUSED_TOKEN_145]x"})
    assert operation(edited) == "新的 段落"
    assert part in edited.model.prompts[0].text
    assert (texts(edited), len(edited.document.states)) == (["一", "二", "三"], 1)


def test_proposals_are_accepted_and_undone():
    edited = editor(abbreviate="短")
    edited.edit(1, edited.abbreviate(1))
    assert texts(edited) == ["一", "短", "三"]
    assert edited.article.at(1).illustration == SPOT  # the picture stays with its paragraph
    edited.insert(0, "开头")
    assert texts(edited) == ["开头", "一", "短", "三"]
    edited.edit(0, "")
    edited.document.undo()
    edited.document.undo()
    edited.document.undo()
    assert texts(edited) == ["一", "二", "三"]


def test_an_added_picture_is_captioned_with_those_around_it_in_view():
    """As the published demo: all captions up to one paragraph further on."""
    edited = editor(FIRST, caption='山"', select="A")
    edited.insert(3, "四")
    edited.document.change("x", lambda a: a.with_illustration(3, Illustration(caption="远")))
    edited.add_picture(0)
    assert (
        '现在<Seg1>后插入图像对应的标题是"雪"。给出适合在<Seg0>后插入的图像对应的标题。' in edited.model.prompts[0].text
    )
    assert "远" not in edited.model.prompts[0].text
    decoding = edited.model.prompts[0].decoding
    assert (decoding.repetition_penalty, decoding.penalise_prompt) == (5.0, True)  # the demo asks with ids here


@pytest.mark.parametrize("style", [FIRST, SECOND])
def test_regenerating_and_continuing_write_after_the_text_that_is_there(style):
    edited = editor(style, write=["另一段\n再一段", "四\n五"])
    assert edited.regenerate(2) == "另一段"
    assert edited.model.prompts[0].text.endswith("一\n二\n")
    edited.continue_writing()
    assert edited.model.prompts[1].text.endswith("一\n二\n三\n")
    assert texts(edited) == ["一", "二", "三", "四", "五"]
    edited.document.undo()
    assert texts(edited) == ["一", "二", "三"]


def test_pictures_are_swapped_removed_and_put_by_hand():
    edited = editor()
    edited.swap(1, 2)
    assert (edited.article.pictures()[0].id, edited.article.at(1).illustration.chosen_by) == ("p2", "user")
    edited.place_picture(1, picture("mine", "my own"))
    spot = edited.article.at(1).illustration
    assert [found.id for found in spot.candidates] == ["mine", "p0", "p1", "p2", "p3"]
    assert (spot.picture.id, spot.caption) == ("mine", "雪")
    edited.remove_picture(1)
    assert edited.article.pictures() == ()
    edited.document.undo()
    assert edited.article.pictures()[0].id == "mine"
    edited.place_picture(0, picture("p7", "a caption of its own"))
    assert [found.id for found in edited.article.pictures()] == ["p7", "mine"]
    assert edited.article.at(0).illustration.caption == "a caption of its own"


def test_a_picture_is_added_with_what_was_never_shown():
    edited = editor(caption='塔"', select="B")
    edited.add_picture(2)
    spot = edited.article.at(2).illustration
    assert (spot.caption, spot.chosen_by, spot.selected) == ("塔", "model", 1)
    assert {found.id for found in spot.candidates} == {"p4", "p5", "p6", "p7"}
    assert '现在<Seg1>后插入图像对应的标题是"雪"。' in edited.model.asked("caption")[0].text
    edited.search(2, "船")
    assert [found.id for found in edited.article.at(2).illustration.candidates] == ["p8"]
    edited.document.undo()
    assert edited.article.at(2).illustration == spot


def test_a_search_that_finds_nothing_leaves_the_place_empty():
    edited = editor(gallery=Memory())
    edited.search(1, "龙")
    spot = edited.article.at(1).illustration
    assert (spot.picture, spot.note) == (None, "no suitable picture was found")


def test_open_places_are_illustrated_together():
    edited = editor(caption='塔"', select="A")
    edited.document.change("mark", lambda a: a.with_illustration(0, Illustration()))
    edited.illustrate()
    assert [found.id for found in edited.article.pictures()] == ["p4", "p0"]
    assert edited.article.at(1).illustration == SPOT


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda e: e.add_picture(1), "paragraph 1 has a picture already; swap it, search again, or remove it first"),
        (lambda e: e.swap(0, 0), "paragraph 0 has no picture; add one first"),
        (lambda e: e.swap(1, 4), "candidate 4 of 4 was chosen; expected 0 to 3"),
        (lambda e: e.regenerate(7), "paragraph 7 of an article of 3"),
        (lambda e: e.regenerate(0), "the model wrote no text for paragraph 0; ask again, or edit it"),
        (lambda e: e.continue_writing(), "the model has nothing more to write; insert a paragraph"),
    ],
)
def test_edits_that_are_refused_leave_no_state(act, message):
    edited = editor(write="\n")
    with pytest.raises(ConfigError, match=message):
        act(edited)
    assert len(edited.document.states) == 1


def test_going_on_can_be_watched_and_is_one_state():
    edited = editor(write="四\n五")
    edited.model.stream = lambda prompt: iter(edited.model.answer(prompt))
    seen = [[paragraph.text for paragraph in article.paragraphs] for article in edited.continuing()]
    assert ["一", "二", "三", "四"] in seen
    assert seen[-1] == texts(edited) == ["一", "二", "三", "四", "五"]
    assert len(edited.document.states) == 2


def test_a_title_is_edited_and_undone():
    edited = editor()
    before = edited.article.title
    edited.retitle("另一个\n标题")
    assert edited.article.title == "另一个 标题"
    edited.document.undo()
    assert edited.article.title == before


def test_a_model_without_eyes_is_not_asked_to_choose():
    edited = editor(caption='雪"')
    edited.sees = False
    edited.add_picture(2)
    spot = edited.article.at(2).illustration
    assert (spot.selected, spot.chosen_by) == (0, "retrieval")
    assert [prompt.step for prompt in edited.model.prompts] == ["caption"]


def test_the_users_own_pictures_are_offered_again():
    own = OwnPictures(PICTURES[:2])
    edited = editor(gallery=own, caption='雪"', select="A")
    edited.document = Document.new(article("一", "二"))
    edited.add_picture(0)
    edited.add_picture(1)
    assert [picture.id for picture in edited.article.pictures()] == ["p0", "p1"]
    assert len(edited.article.at(1).illustration.candidates) == 2
