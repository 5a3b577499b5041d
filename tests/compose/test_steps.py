"""The pipeline with a scripted model and a gallery in memory: order, context, repairs, and what is recorded."""

import dataclasses
import itertools

import pytest
from composing import Memory, Script, article, picture

from vedere.compose.article import Illustration
from vedere.compose.prompts import FIRST, SECOND, Brief
from vedere.compose.steps import Draft, Find, OwnPictures, Select, Spot, Write, pipeline, run, watch
from vedere.errors import ConfigError

TEXT = "西湖在杭州。\n\n断桥有雪。\n茶园很绿。\n<TOKENS_UNUSED_1>ignored"
PICTURES = tuple(
    picture(f"p{number}", caption) for number, caption in enumerate(["湖", "雪桥", "茶", "雪", "塔", "船"])
)


def script(**more):
    answers = {"write": TEXT, "spot": "<Seg0>, <Seg1>", "caption": ['湖"', '雪中的桥"'], "select": ["A", "B"]}
    return Script(**(answers | more))


def draft(*texts, spots=(), **brief):
    made = article(*texts)
    for place, illustration in spots:
        made = made.with_illustration(place, illustration)
    return Draft(brief=Brief(title="西湖", **brief), article=made)


def chosen(result):
    return [picture.id for picture in result.article.pictures()]


def test_the_whole_pipeline():
    model, gallery = script(), Memory(*PICTURES)
    result = run(pipeline(model, gallery, FIRST), Draft.of(Brief(title="西湖")))
    assert [paragraph.text for paragraph in result.article.paragraphs] == ["西湖在杭州。", "断桥有雪。", "茶园很绿。"]
    (first, lake), (second, bridge) = result.article.spots()
    assert (first, lake.caption, second, bridge.caption) == (0, "湖", 1, "雪中的桥")
    assert chosen(result) == ["p0", bridge.candidates[1].id]
    assert (lake.chosen_by, bridge.chosen_by) == ("model", "model")
    assert [prompt.step for prompt in model.prompts] == ["write", "spot", "caption", "caption", "select", "select"]
    assert [event.step for event in result.log] == [prompt.step for prompt in model.prompts]
    assert [event.prompt for event in result.log] == [prompt.text for prompt in model.prompts]


def test_captions_see_earlier_captions_and_choices_see_earlier_pictures():
    model = script()
    run(pipeline(model, Memory(*PICTURES), FIRST), Draft.of(Brief(title="西湖")))
    assert '现在<Seg0>后插入图像对应的标题是"湖"。' in model.asked("caption")[1].text
    first, second = model.asked("select")
    assert len(first.pictures) == 4
    assert second.pictures[0].id == "p0"  # chosen before: in the context, in front of the candidates
    assert "西湖在杭州。\n<ImageHere>断桥有雪。\n" in second.text
    assert "茶园" not in second.text
    assert "<Seg" not in second.text


def test_pictures_that_were_shown_are_not_found_again_and_long_captions_are_cut():
    model, gallery = script(caption=["湖" * 80 + '"', '桥"']), Memory(*PICTURES)
    result = run(pipeline(model, gallery, FIRST), Draft.of(Brief(title="西湖")))
    (query, nothing), (_, shown) = gallery.queries
    assert query == "湖" * 53
    assert nothing == frozenset()
    lake, bridge = (spot for _, spot in result.article.spots())
    assert shown == {found.id for found in lake.candidates}
    assert len(bridge.candidates) == 2
    assert not {found.id for found in bridge.candidates} & shown


@pytest.mark.parametrize(
    ("answers", "index", "by", "asked"),
    [
        (["B"], 1, "model", 1),
        (["图是这张", "C"], 2, "model", 2),
        (["E", "1"], 0, "retrieval", 2),
        (["", ""], 0, "retrieval", 2),
    ],
)
def test_a_choice_outside_the_options_is_repaired_once_then_the_first_found_is_taken(answers, index, by, asked):
    spot = Illustration(caption="雪", candidates=PICTURES[:4])
    model = Script(select=answers)
    result = Select(model, FIRST)(draft("a", "b", spots=[(1, spot)]))
    ((_, found),) = result.article.spots()
    assert (found.selected, found.chosen_by, len(model.prompts)) == (index, by, asked)
    if asked == 2:
        assert "只回答一个字母：A、B、C、D。" not in model.prompts[0].text
        assert "只回答一个字母：A、B、C、D。" in model.prompts[1].text
    assert ("the first picture found was taken" in found.note) == (by == "retrieval")
    assert any("the first picture found was taken" in event.note for event in result.log) == (by == "retrieval")


def test_without_a_choosing_model_retrieval_order_decides():
    spots = [
        (0, Illustration(caption="x", candidates=PICTURES[:2])),
        (1, Illustration(caption="y", candidates=PICTURES[:2])),
    ]
    result = Select(None, FIRST)(draft("a", "b", spots=spots))
    assert chosen(result) == ["p0", "p1"]  # never the same picture twice
    assert {spot.chosen_by for _, spot in result.article.spots()} == {"retrieval"}


def test_the_users_own_pictures_are_used_once_and_the_last_without_asking():
    own = PICTURES[:2]
    model = script(select=["B"])
    result = run(pipeline(model, OwnPictures(own), SECOND), Draft.of(Brief(title="西湖", pictures=own)))
    assert chosen(result) == ["p1", "p0"]
    assert [spot.chosen_by for _, spot in result.article.spots()] == ["model", "only one"]
    assert len(model.asked("select")) == 1
    assert model.asked("write")[0].pictures == own
    assert model.asked("spot")[0].pictures == own


def test_a_place_without_pictures_stays_empty_and_says_so():
    model = script()
    result = run(pipeline(model, Memory(), FIRST), Draft.of(Brief(title="西湖")))
    assert chosen(result) == []
    assert {spot.note for _, spot in result.article.spots()} == {"no suitable picture was found"}
    assert sum("the place stays empty" in event.note for event in result.log) == 2
    assert not model.asked("select")
    used = Illustration(caption="x", candidates=PICTURES[:1], selected=0)
    again = Select(model, FIRST)(draft("a", "b", spots=[(0, used), (1, dataclasses.replace(used, selected=None))]))
    assert again.article.spots()[1][1].note == "every candidate already stands in the article"


@pytest.mark.parametrize(
    ("number", "answer", "places"),
    [
        (None, "<Seg2><Seg0>", [0, 2]),
        (1, "<Seg2><Seg0>", [0]),
        (9, "<Seg1>", [1]),
        (None, "<Seg7>", []),
        (0, "<Seg1>", []),
    ],
)
def test_spotting(number, answer, places):
    model = Script(spot=answer)
    result = Spot(model, FIRST, number)(draft("a", "b", "c"))
    assert [place for place, _ in result.article.spots()] == places
    if number == 9:
        assert "选择适合插入图像的3行" in model.prompts[0].text  # no more than there are paragraphs
    if not places:
        assert "no pictures" in result.log[-1].note
    assert bool(model.prompts) == (number != 0)


def test_an_empty_caption_is_the_end_of_the_paragraph():
    model = script(caption='"')
    result = run(pipeline(model, Memory(*PICTURES), FIRST), Draft.of(Brief(title="西湖")), until="caption")
    assert [spot.caption for _, spot in result.article.spots()] == ["西湖在杭州。", "断桥有雪。"]
    assert sum("the end of its text stands for it" in event.note for event in result.log) == 2


def test_a_long_article_loses_its_oldest_context_and_never_the_question():
    spots = [(0, Illustration(caption="x", candidates=PICTURES[4:5], selected=0))]
    spots.append((2, Illustration(caption="y", candidates=PICTURES[:4])))
    model = Script(select="A")
    result = Select(model, FIRST)(draft("旧" * 900, "中" * 1000, "新" * 300, spots=spots))
    (prompt,) = model.prompts
    assert "新" * 300 in prompt.text
    assert "旧" not in prompt.text
    assert prompt.text.endswith("最合适的图是")
    written = "".join(part for part in prompt.parts if isinstance(part, str)).replace("<TOKENS_UNUSED_0>", "E")
    assert 0.9 * FIRST.room < len(written) + 66 * len(prompt.pictures) <= FIRST.room
    assert any("the oldest 2 parts of the context" in event.note for event in result.log)


def test_steps_can_be_replaced_left_out_and_stopped():
    steps = dict(pipeline(script(), Memory(*PICTURES), FIRST))
    steps["write"] = lambda made: dataclasses.replace(made, article=article("mine", "own"))
    del steps["select"]
    result = run(list(steps.items()), Draft.of(Brief(title="西湖")))
    assert result.article.at(0).text == "mine"
    assert all(spot.candidates and spot.selected is None for _, spot in result.article.spots())
    with pytest.raises(ConfigError, match=r"no step 'selekt' \(steps: write, spot, caption, find\)"):
        run(list(steps.items()), Draft.of(Brief(title="西湖")), until="selekt")


def test_what_is_refused():
    with pytest.raises(ConfigError, match="the model wrote no text for '西湖'; ask again, or give an outline"):
        Write(Script(write="\n<TOKENS_UNUSED_1>x"), FIRST)(Draft.of(Brief(title="西湖")))
    with pytest.raises(ConfigError, match="-1 pictures were asked for; expected 0 or more"):
        Spot(Script(), FIRST, -1)(draft("a"))
    with pytest.raises(ConfigError, match="27 candidates; expected 1 to 26, one a letter"):
        Find(Memory(), FIRST, 27)


class Streaming(Script):
    """Gives its answers in pieces of a few characters."""

    def __init__(self, size, **answers):
        super().__init__(**answers)
        self.size = size

    def stream(self, prompt):
        answer = self.answer(prompt)
        for start in range(0, len(answer), self.size):
            yield answer[start : start + self.size]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_watching_a_model_that_streams_ends_where_running_ends(size):
    plain = run(pipeline(script(), Memory(*PICTURES), FIRST), Draft.of(Brief(title="西湖")))
    answers = {"write": TEXT, "spot": "<Seg0>, <Seg1>", "caption": ['湖"', '雪中的桥"'], "select": ["A", "B"]}
    seen = list(watch(pipeline(Streaming(size, **answers), Memory(*PICTURES), FIRST), Draft.of(Brief(title="西湖"))))
    assert seen[-1][1] == plain
    assert list(dict.fromkeys(name for name, _ in seen)) == ["write", "spot", "caption", "find", "select"]
    grown = [[paragraph.text for paragraph in part.article.paragraphs] for name, part in seen if name == "write"]
    if size == 1:
        assert ["西湖在"] in grown
    for shorter, longer in itertools.pairwise(grown):  # what was shown is never taken back
        assert "".join(longer).startswith("".join(shorter))
    assert not any("ignored" in text or "<" in text for texts in grown for text in texts)


def test_what_was_yielded_before_an_error_is_there():
    model = script()
    del model.answers["select"]
    drafts = []
    watched = watch(pipeline(model, Memory(*PICTURES), FIRST), Draft.of(Brief(title="西湖")))
    with pytest.raises(KeyError):
        drafts.extend(made for _, made in watched)
    assert [spot.caption for _, spot in drafts[-1].article.spots()] == ["湖", "雪中的桥"]


def test_steps_of_somebody_else_are_watched_at_their_end():
    steps = [("theirs", lambda draft: draft.noted("theirs", "done"))]
    assert [len(made.log) for _, made in watch(steps, Draft.of(Brief(title="t")))] == [0, 1]


def test_a_stream_without_pieces_is_an_empty_answer():
    with pytest.raises(ConfigError, match="wrote no text"):
        run([("write", Write(Streaming(1, write=""), FIRST))], Draft.of(Brief(title="t")))
