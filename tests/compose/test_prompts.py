"""Every prompt of the specification as bytes, for both checkpoints, and what is read out of answers."""

import pytest
from composing import article, picture

from vedere.compose.prompts import FIRST, SECOND, Brief, read_caption, read_choice, read_spots, until_end, whole_marks
from vedere.errors import ConfigError, PromptError

WEST = article("西湖在杭州。", "断桥有雪。", "茶园很绿。")
A, B, C, D, E = (picture(name) for name in "abcde")
ASK2 = "[UNUSED_TOKEN_146]user\n"
ANSWER2 = "[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n"
PAST = [(0, "西湖全景"), (1, "雪中断桥")]
SAID = '现在<Seg0>后插入图像对应的标题是"西湖全景"， <Seg1>后插入图像对应的标题是"雪中断桥"。'
SEGMENTS = "<Seg0> 西湖在杭州。\n<Seg1> 断桥有雪。\n<Seg2> 茶园很绿。\n"

PROMPTS = {
    "first, write": (
        FIRST.write(Brief(title="杭州西湖")),
        " <|User|>:根据给定标题写一个图文并茂，不重复的文章：杭州西湖\n<TOKENS_UNUSED_0> <|Bot|>:",
    ),
    "first, spot": (
        FIRST.spot(WEST),
        f' <|User|>:给定文章"{SEGMENTS}" 根据上述文章，选择适合插入图像的行 \n<TOKENS_UNUSED_0> <|Bot|>:适合插入图像的行是',
    ),
    "first, spot two": (
        FIRST.spot(WEST, 2),
        f' <|User|>:给定文章"{SEGMENTS}" 根据上述文章，选择适合插入图像的2行 \n<TOKENS_UNUSED_0> <|Bot|>:适合插入图像的行是',
    ),
    "first, caption": (
        FIRST.caption(WEST, 0, []),
        ' <|User|>: 给定文章"<Seg0> 西湖在杭州。\n<Seg1> 断桥有雪。\n" 给出适合在<Seg0>后插入的图像对应的标题。 \n'
        '<TOKENS_UNUSED_0> <|Bot|>: 标题是"',
    ),
    "first, caption after one": (
        FIRST.caption(WEST, 1, PAST[:1]),
        f' <|User|>: 给定文章"{SEGMENTS}" 现在<Seg0>后插入图像对应的标题是"西湖全景"。'
        "给出适合在<Seg1>后插入的图像对应的标题。 \n"
        '<TOKENS_UNUSED_0> <|Bot|>: 标题是"',
    ),
    "first, caption after two": (
        FIRST.caption(WEST, 2, PAST),
        f' <|User|>: 给定文章"{SEGMENTS}" {SAID}给出适合在<Seg2>后插入的图像对应的标题。 \n'
        '<TOKENS_UNUSED_0> <|Bot|>: 标题是"',
    ),
    "first, caption of an added picture": (
        FIRST.caption(WEST, 0, PAST[1:], added=True),
        ' <|User|>: 给定文章"<Seg0> 西湖在杭州。\n<Seg1> 断桥有雪。\n" 现在<Seg1>后插入图像对应的标题是"雪中断桥"。'
        "给出适合在<Seg0>后插入的图像对应的标题。 \n"
        '<TOKENS_UNUSED_0> <|Bot|>: 标题是"',
    ),
    "first, select": (
        FIRST.select(["西湖在杭州。\n", E, "断桥有雪。\n"], [A, B, C, D]),
        "  <|User|>:根据给定上下文和候选图像，选择合适的配图：西湖在杭州。\n<ImageHere>断桥有雪。\n\n\n"
        "候选图像包括: A.<ImageHere>\nB.<ImageHere>\nC.<ImageHere>\nD.<ImageHere>\n\n"
        "<TOKENS_UNUSED_0> <TOKENS_UNUSED_0> <|Bot|>:最合适的图是",
    ),
    "second, write": (
        SECOND.write(Brief(title="杭州西湖", outline="写三段。", material="西湖三面环山。", pictures=(A, B))),
        f"{ASK2}<image> <image>杭州西湖\n写三段。\n西湖三面环山。{ANSWER2}",
    ),
    "second, write freely": (
        SECOND.write(
            Brief(title="杭州西湖", outline="断桥；茶园", requirements="八百字，散文", material="西湖三面环山。")
        ),
        f"{ASK2}杭州西湖\n断桥；茶园\n八百字，散文\n西湖三面环山。{ANSWER2}",
    ),
    "second, spot as many as it likes": (
        SECOND.spot(WEST, None, [A, B]),
        f'{ASK2}<image> <image> 给定文章"{SEGMENTS}" 根据上述文章，选择适合插入图像的行{ANSWER2}适合插入图像的行是',
    ),
    "second, spot without pictures": (
        SECOND.spot(WEST),
        f'{ASK2}给定文章"{SEGMENTS}" 根据上述文章，选择适合插入图像的行{ANSWER2}适合插入图像的行是',
    ),
    "second, first caption": (
        SECOND.caption(WEST, 0, []),
        f'{ASK2}给定文章"<Seg0> 西湖在杭州。\n<Seg1> 断桥有雪。\n" 给出适合在<Seg0>后插入的图像对应的标题。{ANSWER2}标题是"',
    ),
    "second, caption after one": (
        SECOND.caption(WEST, 1, PAST[:1]),
        f'{ASK2}给定文章"{SEGMENTS}" 现在<Seg0>后插入图像对应的标题是"西湖全景"。'
        f'给出适合在<Seg1>后插入的图像对应的标题。{ANSWER2}标题是"',
    ),
    "second, select the first of four": (
        SECOND.select(["西湖在杭州。\n"], [A, B, C, D]),
        f"{ASK2}根据给定上下文和候选图像，选择合适的配图：西湖在杭州。\n"
        f"候选图像包括: A.<image>\nB.<image>\nC.<image>\nD.<image>{ANSWER2}最合适的图是",
    ),
    "second, expand without material": (
        SECOND.expand("断桥有雪。"),
        f"{ASK2}扩写以下段落：断桥有雪。\n基于以下素材：{ANSWER2}",
    ),
    "second, rewrite with material": (
        SECOND.rewrite("断桥有雪。", "白娘子传说"),
        f"{ASK2}改写以下段落：断桥有雪。\n基于以下素材：白娘子传说{ANSWER2}",
    ),
    "second, insert in front": (
        SECOND.insert("", "断桥有雪。", "雷峰塔"),
        f"{ASK2}在以下两段中插入一段。\n第一段：\n第二段：断桥有雪。\n插入段的大纲：雷峰塔{ANSWER2}",
    ),
    "second, insert between": (
        SECOND.insert("西湖在杭州。", "断桥有雪。", "雷峰塔"),
        f"{ASK2}在以下两段中插入一段。\n第一段：西湖在杭州。\n第二段：断桥有雪。\n插入段的大纲：雷峰塔{ANSWER2}",
    ),
    "second, spot": (
        SECOND.spot(WEST, 2, [A]),
        f'{ASK2}<image> 给定文章"{SEGMENTS}" 根据上述文章，选择适合插入图像的2行{ANSWER2}适合插入图像的行是',
    ),
    "second, caption": (
        SECOND.caption(WEST, 2, PAST),
        f'{ASK2}给定文章"{SEGMENTS}" {SAID}给出适合在<Seg2>后插入的图像对应的标题。{ANSWER2}标题是"',
    ),
    "second, select": (
        SECOND.select(["西湖在杭州。\n", E, "断桥有雪。\n"], [A, B]),
        f"{ASK2}根据给定上下文和候选图像，选择合适的配图：西湖在杭州。\n<image>断桥有雪。\n候选图像包括: A.<image>\nB.<image>"
        f"{ANSWER2}最合适的图是",
    ),
    "second, expand": (
        SECOND.expand("断桥有雪。", "白娘子传说"),
        f"{ASK2}扩写以下段落：断桥有雪。\n基于以下素材：白娘子传说{ANSWER2}",
    ),
    "second, rewrite": (SECOND.rewrite("断桥有雪。"), f"{ASK2}改写以下段落：断桥有雪。\n基于以下素材：{ANSWER2}"),
    "second, abbreviate": (SECOND.abbreviate("断桥有雪。"), f"{ASK2}缩写以下段落：断桥有雪。{ANSWER2}"),
    "second, insert": (
        SECOND.insert("断桥有雪。", "", "雷峰塔"),
        f"{ASK2}在以下两段中插入一段。\n第一段：断桥有雪。\n第二段：\n插入段的大纲：雷峰塔{ANSWER2}",
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_is_the_published_one(name):
    prompt, expected = PROMPTS[name]
    assert prompt.text == expected
    assert prompt.text.encode() == expected.encode()


def test_pictures_of_a_prompt_come_in_the_order_of_their_marks():
    assert PROMPTS["first, select"][0].pictures == (E, A, B, C, D)
    assert PROMPTS["second, write"][0].pictures == (A, B)


@pytest.mark.parametrize(
    ("name", "beams", "sample", "penalty", "tokens"),
    [
        ("first, write", 5, False, 5.0, 1000),
        ("first, spot", 5, False, 1.0, 300),
        ("first, caption", 1, False, 5.0, 100),
        ("first, select", 5, False, 1.0, 10),
        ("second, write", 1, True, 1.005, 4096),
        ("second, select", 1, True, 1.005, 10),
        ("second, expand", 1, True, 1.005, 500),
        ("second, rewrite", 1, True, 1.005, 500),
        ("second, abbreviate", 1, True, 1.005, 500),
        ("second, insert between", 1, True, 1.005, 500),
        ("second, spot", 1, True, 1.005, 200),
        ("second, first caption", 1, True, 1.005, 200),
    ],
)
def test_decoding_is_the_published_one(name, beams, sample, penalty, tokens):
    found = PROMPTS[name][0].decoding
    assert (found.beams, found.sample, found.repetition_penalty, found.new_tokens) == (beams, sample, penalty, tokens)
    assert (found.top_p, found.top_k) == ((0.8, 40) if sample else (1.0, 0))


def test_the_penalty_counts_the_prompt_where_the_published_code_asks_with_ids():
    counted = {name for name, (prompt, _) in PROMPTS.items() if prompt.decoding.penalise_prompt}
    asked_with_ids = {
        "second, spot without pictures",
        "second, first caption",
        "second, caption after one",
        "second, caption",
        "first, caption of an added picture",
    }
    assert counted == asked_with_ids


def test_the_question_is_the_prompt_without_its_frame():
    """For models that frame turns themselves; nothing of the text is lost."""
    for prompt, _ in PROMPTS.values():
        question = "".join(part if isinstance(part, str) else prompt.mark for part in prompt.question)
        before, _, after = prompt.text.partition(question)
        assert before in (" <|User|>:", "  <|User|>:", ASK2)
        assert after in (f"<TOKENS_UNUSED_0> <|Bot|>:{prompt.start}", f"{ANSWER2}{prompt.start}") or (
            after == f"<TOKENS_UNUSED_0> <TOKENS_UNUSED_0> <|Bot|>:{prompt.start}"
        )


def test_writing_goes_on_inside_the_answer():
    assert FIRST.write(Brief(title="西湖"), "第一段。\n").text.endswith(" <|Bot|>:第一段。\n")


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("<Seg0>, <Seg2>", (0, 2)),
        ("<Seg2><Seg0><Seg2><Seg3><Seg99999999999>", (0, 2)),
        ("<Seg1><TOKENS_UNUSED_1><Seg2>", (1,)),
        ("none", ()),
    ],
)
def test_spots_of_an_answer(answer, places):
    assert read_spots(answer, 3) == places


def test_captions_and_choices_of_answers():
    assert read_caption(' 雪中断桥 "。</s>') == "雪中断桥"
    assert read_caption("<TOKENS_UNUSED_1>") == ""
    assert [read_choice(text, 3) for text in (" B", "C.", "D", "a", "", "图A", "[UNUSED_TOKEN_145]A")] == [
        1, 2, None, None, None, None, None,
    ]  # fmt: skip


def test_what_cannot_be_asked():
    with pytest.raises(
        PromptError, match="a title of 10000 characters; expected at most 1000: put the text into outline"
    ):
        Brief(title="长" * 10_000)
    with pytest.raises(PromptError, match="the article has no title; give one"):
        Brief(title=" \n")
    with pytest.raises(PromptError, match="has no outline; say what it should be about"):
        SECOND.insert("a", "b", " ")
    for ask in (FIRST.expand, FIRST.rewrite, FIRST.abbreviate):
        with pytest.raises(ConfigError, match=r"'xcomposer' was not tuned to \w+ paragraphs; use the second"):
            ask("x")


@pytest.mark.parametrize("mark", ["<TOKENS_UNUSED_1>", "[UNUSED_TOKEN_145]", "</s>"])
def test_an_answer_that_is_being_written_never_shows_a_part_of_its_end(mark):
    whole = f"a < b [c{mark}ignored"
    for length in range(len(whole) + 1):
        assert "a < b [c".startswith(until_end(whole_marks(whole[:length])))
    assert until_end(whole_marks(whole)) == "a < b [c"
    assert whole_marks("a <") == "a "  # it may still become one
    assert whole_marks("a <b") == "a <b"
