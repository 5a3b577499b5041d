"""How harnesses word a question, to the letter; marks, layouts, limits; the judges' questions and replies."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_benchmarks import picture
from vedere.errors import ConfigError
from vedere.evals.circular import PASS
from vedere.evals.image_items import circular, hallusion, rotations
from vedere.evals.image_suites import ALL_SETS, image_benchmark
from vedere.evals.items import Item, Picture, select
from vedere.evals.judges import LONGEST, ChoiceJudge, ExtractionJudge, GradeJudge, PairJudge
from vedere.evals.prompt_sets import make_prompt, names, prompt_set
from vedere.evals.records import Row
from vedere.evals.suites import SUITES
from vedere.evals.tables import PICTURES
from vedere.plan import TilingPolicy

ONE = Picture(source=picture(0))
TWO = Picture(source=picture(1))
OPTIONS = {"A": "cat", "B": "dog"}


def item(kind="choice", question="What is it?", media=(ONE,), **fields) -> Item:
    fields.setdefault("options", OPTIONS if kind == "choice" else {})
    return Item(id="1", parts=(*media, question), kind=kind, **fields)


@pytest.mark.parametrize(
    ("name", "benchmark", "asked", "text", "tokens", "tiles"),
    [
        (
            "vlmevalkit",
            "mmbench",
            item(hint="Look."),
            "<image>Hint: Look.\nQuestion: What is it?\nOptions:\nA. cat\nB. dog\n"
            "Please select the correct answer from the options above. \n",
            512,
            None,
        ),
        (
            "internvl",
            "mmbench",
            item(hint="Look."),
            "<image>Look.\nWhat is it?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly.",
            100,
            6,
        ),
        (
            "internvl",
            "mmbench-cn",
            item(question="这是什么？"),
            "<image>这是什么？\nA. cat\nB. dog\n请直接回答选项字母。",
            100,
            6,
        ),
        ("xcomposer", "ai2d", item(), "<image>Question: What is it?\nContext: N/A\nOptions: A. cat B. dog ", 5, 36),
        (
            "xcomposer",
            "textvqa",
            item("short"),
            "<image>Answer the question using a single word or phrase.What is it?",
            100,
            36,
        ),
        (
            "xcomposer",
            "mme",
            item("yes_no", "Is it red? Please answer yes or no."),
            "<image>Is it red? Answer this question briefly",
            2048,
            36,
        ),
        (
            "internvl",
            "mme",
            item("yes_no", "Is it red? Please answer yes or no."),
            "<image>Is it red? Please answer yes or no. Answer the question using a single word or phrase.",
            20,
            6,
        ),
        (
            "internvl",
            "docvqa",
            item("short"),
            "<image>What is it? Answer the question using a single word or phrase.",
            100,
            18,
        ),
        (
            "internvl",
            "infovqa",
            item("short"),
            "<image>What is it? Answer the question using a single word or phrase.",
            100,
            24,
        ),
        ("official", "mme", item("yes_no"), "<image>What is it?", 128, None),
        (
            "official",
            "refcoco",
            item("box", "the dog"),
            "<image>Please provide the bounding box coordinate of the region this sentence describes: <ref>the dog</ref>",
            100,
            None,
        ),
        (
            "internvl",
            "mmmu",
            item(media=(ONE, TWO), question="In <image 2>?"),
            "Image-1: <image>\nImage-2: <image>\nIn <image 2>?\nA. cat\nB. dog\n"
            "Answer with the option's letter from the given choices directly.",
            10,
            24,
        ),
        (
            "vlmevalkit",
            "mmmu",
            item(media=(ONE, TWO), question="In <image 2> or <image 7>?", options={"A": "<image 1>", "B": "no"}),
            "Question: In <image> or <image 7>?\nOptions:\nA. <image>\nB. no\n"
            "Please select the correct answer from the options above. \n",
            512,
            None,
        ),
    ],
)
def test_prompts_to_the_letter(name, benchmark, asked, text, tokens, tiles):
    prompt = make_prompt(asked, name, benchmark)
    assert (prompt.text, prompt.max_new_tokens, prompt.max_tiles) == (text, tokens, tiles)
    assert prompt.prefill == ("The answer is" if name == "xcomposer" and asked.kind == "choice" else "")
    assert len(prompt.media) == len(asked.media)


def test_marks_place_the_pictures_that_they_name():
    asked = item(media=(ONE, TWO), question="First <image 2>, then <image 1>")
    assert [part for part in make_prompt(asked, "vlmevalkit", "").parts if isinstance(part, Picture)] == [TWO, ONE]
    assert [part for part in make_prompt(asked, "xcomposer", "").parts if isinstance(part, Picture)] == [ONE, TWO]


@pytest.mark.parametrize(("count", "each"), [(1, 12), (2, 12), (5, 12), (7, 9), (64, 1), (80, 1)])
def test_internvl_gives_every_picture_its_own_tiles_within_64(count, each):
    prompt = make_prompt(item(media=(ONE,) * count), "internvl", "mmmu")
    policy = TilingPolicy(max_tiles=prompt.max_tiles).for_images(count)
    assert policy.max_tiles == each


def test_the_first_picture_of_mmmu_is_doubled_for_internvl():
    (medium,) = make_prompt(item(), "internvl", "mmmu").media
    assert medium.images()[0].size == (96, 96)
    assert medium.digest() != ONE.digest()


@given(question=st.text(max_size=60), name=st.sampled_from(ALL_SETS))
def test_a_question_stands_in_its_prompt_as_it_is(question, name):
    """Braces and format marks in a question are not instructions; marks of pictures are tested above."""
    if "<image" in question:
        return
    assert question in make_prompt(item("free", question), name, "").text


def test_sets_are_whole():
    assert names() == ALL_SETS
    for name in names():
        for benchmark in SUITES:
            found = prompt_set(name, benchmark)
            assert set(found.texts) == set(found.tokens) == {"choice", "direct", "short", "yes_no", "free", "box"}
    with pytest.raises(ConfigError, match="unknown prompt set 'vlmeval'; did you mean 'vlmevalkit'"):
        prompt_set("vlmeval", "mme")


def row(**fields) -> Row:
    return Row(2, {"index": "3", "question": "q", PICTURES: [ONE], **fields})


@given(
    options=st.dictionaries(st.sampled_from("ABCDEF"), st.text(min_size=1, max_size=5).filter(str.strip), min_size=2),
    data=st.data(),
)
def test_circular_copies_show_every_option_at_every_letter(options, data):
    """Letters may be missing; each pass has one right answer, always the same text."""
    options = dict(sorted(options.items()))
    answer = data.draw(st.sampled_from(sorted(options)))
    found = circular(row(**options, answer=answer))
    assert [one.id for one in found] == [str(3 + k * PASS) for k in range(len(options))]
    assert {one.group for one in found} == {"3"}
    assert all(one.options[one.target] == options[answer] and set(one.options) == set(options) for one in found)
    assert {one.target for one in found} == set(options)
    assert [dict(one.options) for one in found] == [moved for moved, _ in rotations(options, answer)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"A": "x", "answer": "A"}, "line 2: the row has 1 options; expected at least two"),
        ({"A": "x", "C": "y", "answer": "B"}, r"the answer is 'B'; expected one of the options' letters \(A, C\)"),
        ({"A": "x", "C": "y", "answer": "A", "index": "x1"}, "'index' is 'x1'; expected a whole number"),
        ({"A": "x", "C": "y", "answer": "A", PICTURES: []}, "the row has no picture"),
    ],
)
def test_rows_that_do_not_fit_are_named(fields, message):
    with pytest.raises(Exception, match=message):
        circular(row(**fields))


def test_a_test_split_has_no_answers_and_still_turns():
    first, second = circular(row(A="x", B="y"))
    assert (first.target, second.target, first.options, second.options) == (
        "",
        "",
        {"A": "x", "B": "y"},
        {"A": "y", "B": "x"},
    )


def test_hallusionbench_without_a_picture_is_left_out():
    assert hallusion(Row(1, {"question": "q", "answer": "yes"})) == []


def test_duplicate_ids_are_refused_and_empty_benchmarks_too():
    with pytest.raises(Exception, match="items 1 and 2 both have the id '1'; expected one row a question"):
        select([item(), item()], None, 0)
    with pytest.raises(Exception, match="the benchmark has no items"):
        select([], None, 0)


@given(
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    limit=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_a_selection_has_whole_groups_in_order(groups, limit, seed):
    items = [Item(id=str(n), parts=("q",), group=str(group)) for n, group in enumerate(groups)]
    kept = select(items, limit, seed)
    assert kept == [one for one in items if one in kept]
    assert {one.group for one in kept}.isdisjoint({one.group for one in items} - {one.group for one in kept})
    assert all(one in kept for one in items if one.group in {other.group for other in kept})
    assert len(kept) <= limit or len({one.group for one in kept}) == 1
    assert kept == select(items, limit, seed)


CHOICE = {"question": "q", "A": "cat", "B": "dog", "answer": "A"}


@pytest.mark.parametrize(
    ("judge", "reply", "fields"),
    [
        (ChoiceJudge(), "A", {"judge_letter": "A"}),
        (ChoiceJudge(), "Z", {"judge_letter": "Z"}),
        (ChoiceJudge(), "The answer is (B).", {"judge_letter": "B"}),
        (ChoiceJudge(), "I'm sorry, I can't help with that.", None),
        (ChoiceJudge(), "答案是B", {"judge_letter": "B"}),
        (ChoiceJudge(), "", None),
        (GradeJudge(), "0.7", {"scores": [0.7]}),
        (GradeJudge(), "Grade: 1.0", {"scores": [1.0]}),
        (GradeJudge(), "**0**", {"scores": [0.0]}),
        (GradeJudge(), "1.5", None),
        (GradeJudge(), "1/10", None),
        (GradeJudge(), "10", None),
        (GradeJudge(), "I cannot grade this", None),
        (GradeJudge(), "", None),
        (PairJudge(), "8 9.5\nGood.", {"scores": [8.0, 9.5]}),
        (PairJudge(), "8, 9", {"scores": [8.0, 9.0]}),
        (PairJudge(), "0 11", None),
        (PairJudge(), "Assistant 1 is better", None),
        (PairJudge(), "", None),
        (ExtractionJudge(), " 12 ", {"extraction": "12"}),
        (ExtractionJudge(), "it is\n12", None),
        (ExtractionJudge(), "x" * 300, None),
        (ExtractionJudge(), "", None),
    ],
)
def test_replies_of_judges(judge, reply, fields):
    assert judge.read(reply, CHOICE) == fields


def test_judges_are_asked_only_what_rules_leave_open_and_see_no_endless_answer():
    assert ChoiceJudge().ask({**CHOICE, "prediction": "A"}) is None
    assert ChoiceJudge().ask({**CHOICE, "prediction": ""}) is None
    asked = ChoiceJudge().ask({**CHOICE, "prediction": "neither of them " * 10_000})
    assert asked is not None
    assert len(asked.text) < LONGEST + 600
    assert re.search(r"A\. cat\nB\. dog\n", asked.text)
    assert ExtractionJudge().ask({"answer_type": "integer", "question": "q", "response": "7", "choices": None}) is None
    assert ExtractionJudge().ask(
        {"answer_type": "integer", "question": "q", "response": "seven or so", "choices": None}
    )


def test_blink_reads_answers_as_vlmevalkit_does():
    rows = image_benchmark("blink").rows
    assert rows is not None
    given = [{"prediction": text, "options": OPTIONS} for text in ("(A)", "B.", "a dog", "cat or dog", "")]
    assert [one["prediction"] for one in rows(given)] == ["(A)", "(B)", "(B)", "cat or dog", ""]
