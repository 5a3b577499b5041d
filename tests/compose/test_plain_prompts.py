"""Plain questions: what they say, and what is read out of answers that say more than was asked."""

import pytest
from composing import Script, article, picture
from hypothesis import given
from hypothesis import strategies as st

from vedere.compose.cast import divided_style, language_of
from vedere.compose.plain_prompts import plain_style
from vedere.compose.prompts import SECOND, Brief
from vedere.compose.steps import Draft, OwnPictures, pipeline, run
from vedere.errors import ConfigError, PromptError

EN, ZH = plain_style("en"), plain_style("zh")
WEST = article("The lake.", "A bridge in snow.", "Tea.")
A, B, C = (picture(name) for name in "abc")


def test_the_questions_of_the_five_steps():
    write = EN.write(Brief(title="West Lake", outline="o", requirements="r", material="m", pictures=(A,)))
    assert write.text.endswith("<image>\nTitle: West Lake\nOutline: o\nRequirements: r\nReference: m")
    assert write.pictures == (A,)
    spot = EN.spot(WEST, 2)
    assert spot.text.startswith("<Seg0> The lake.\n<Seg1> A bridge in snow.\n<Seg2> Tea.\n\nAfter which 2 of these")
    assert "After which of these" in EN.spot(WEST).text
    caption = EN.caption(WEST, 1, [(0, "a lake")])
    assert 'The picture after <Seg0> shows "a lake".\nA picture stands after <Seg1>.' in caption.text
    select = EN.select(["The lake.\n", C, "A bridge.\n"], [A, B], repair=True)
    assert "The lake.\n<image>A bridge.\n\nCandidates:\nA. <image>\nB. <image>\nWhich" in select.text
    assert select.pictures == (C, A, B)
    assert select.text.endswith("Answer with one letter only: A, B.")
    assert "how it goes on" in EN.write(Brief(title="x"), "The lake.\n").text


def test_the_same_in_chinese_without_a_latin_word():
    prompts = [
        ZH.write(Brief(title="西湖")),
        ZH.spot(WEST),
        ZH.caption(article("湖"), 0, []),
        ZH.select(["湖\n"], [A, B]),
    ]
    prompts += [ZH.expand("湖", "山"), ZH.rewrite("湖"), ZH.abbreviate("湖"), ZH.insert("湖", "", "雪")]
    for prompt in prompts:
        words = prompt.text.replace("<Seg", "").replace("<image>", "")
        assert not any(
            ord("a") <= ord(sign) <= ord("z") for sign in words.replace("The lake.", "").replace("Tea", "")
        ) or (prompt.step == "spot")
    assert "哪2个段落之后" in ZH.spot(WEST, 2).text
    assert "哪些段落之后" in ZH.spot(WEST).text


def test_nothing_frames_a_plain_question():
    for style in (EN, ZH):
        for prompt in (style.write(Brief(title="x")), style.spot(WEST), style.select([], [A, B]), style.expand("x")):
            assert prompt.parts == prompt.question
            assert prompt.start == ""
            assert not prompt.decoding.sample


def test_headings_and_marks_of_lists_are_no_paragraphs():
    answer = "# West Lake\n\n**A lake**\nTitle: x\nIt is **old**.\n---\n- one\n2. two\n## End\nLast.<|x|>"
    assert EN.text_of(answer) == "It is **old**.\none\ntwo\nLast.<|x|>"
    assert ZH.text_of("标题：西湖\n湖很大。") == "湖很大。"


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("<Seg0>, <Seg2>", (0, 2)),
        ("After <Seg1>, of 3 paragraphs.", (1,)),
        ("0 and 2", (0, 2)),
        ("Paragraphs 1, 2, 17 and 1.", (1, 2)),
        ("第1段和第2段", (1, 2)),
        ("3.14", ()),
        ("none", ()),
        ("<Seg9>, 1", ()),
    ],
)
def test_places(answer, places):
    assert EN.spots_of(answer, 3) == places


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A bridge in snow", "A bridge in snow"),
        ('\n "A bridge in snow."\nIt shows ...', "A bridge in snow."),
        ("Caption: **A bridge**", "A bridge"),
        ("标题：“断桥残雪”", "断桥残雪"),
        ("\n", ""),
    ],
)
def test_captions(answer, caption):
    assert EN.caption_of(answer) == caption


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", 1),
        ("B.", 1),
        ("(C) because", 2),
        ("**A**", 0),
        ("The best is B.", 1),
        ("Candidate C suits this place best.", 2),
        ("A bridge, so B", 1),
        ("A bridge in snow.", None),
        ("A or B", None),
        ("最合适的是B。", 1),
        ("D", None),
        ("E. none of A", None),
        ("A is the best", 0),
        ("b", None),
        ("", None),
        ("bicycle", None),
    ],
)
def test_choices(answer, choice):
    assert EN.choice_of(answer, 3) == choice


@given(st.text(max_size=80), st.integers(1, 26))
def test_any_answer_is_read_as_something_valid(answer, count):
    choice = EN.choice_of(answer, count)
    assert choice is None or 0 <= choice < count
    assert all(0 <= place < count for place in EN.spots_of(answer, count))
    assert "\n" not in EN.caption_of(answer)
    assert len(EN.caption_of(answer)) <= 300


def test_a_pipeline_with_plain_questions():
    model = Script(
        write="# West Lake\nThe lake.\nThe bridge.",
        spot="1",
        caption='"Snow"',
        select=["I choose the second one", "It is B"],
    )
    result = run(pipeline(model, OwnPictures((A, B)), EN), Draft.of(Brief(title="West Lake")))
    assert [paragraph.text for paragraph in result.article.paragraphs] == ["The lake.", "The bridge."]
    ((place, spot),) = result.article.spots()
    assert (place, spot.caption, spot.selected, spot.chosen_by) == (1, "Snow", 1, "model")
    assert len(model.asked("select")) == 2


def test_a_number_of_pictures_is_kept_where_the_model_names_no_place():
    model = Script(write="\n".join("abcdef"), spot="no idea", caption="x", select="A")
    steps = pipeline(model, OwnPictures((A, B, C)), EN, number=3)
    result = run(steps, Draft.of(Brief(title="x")))
    assert [place for place, _ in result.article.spots()] == [1, 3, 5]
    assert any("3 were taken evenly" in event.note for event in result.log)


def test_one_writes_in_plain_words_and_the_other_chooses_in_its_own():
    style = divided_style(EN, SECOND)
    assert style.write(Brief(title="x")).text == EN.write(Brief(title="x")).text
    assert style.select(["x\n"], [A, B]) == SECOND.select(["x\n"], [A, B])
    assert (style.room, style.per_picture) == (SECOND.room, SECOND.per_picture)
    assert style.choice_of("The best is B", 2) is None  # as the published code reads it


def test_what_is_refused():
    with pytest.raises(ConfigError, match="language 'fr'; plain questions are asked in en or zh"):
        plain_style("fr")
    with pytest.raises(PromptError, match="has no outline"):
        EN.insert("a", "b", " ")
    assert [language_of(text) for text in ("West Lake", "杭州 West Lake", "")] == ["en", "zh", "en"]
