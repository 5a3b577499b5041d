"""What the filters of captions let through, as laws and by example."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError
from vedere.recaption.filters import FILTERS, Caption, FilterConfig, clean, too_often, verdict, words

CONFIG = FilterConfig()
GOOD = (
    "A red square and two blue circles on a white ground.",
    "a brown leather boot with a low heel",
    "Three people sit around a wooden table with plates of food.",
    "A sign that says 'no entry'.",
)
WORDS = st.lists(st.sampled_from("red blue green square circle dog house tree river boat".split()), min_size=2)  # noqa: SIM905


def of(text: str, **changes: object) -> str:
    return verdict(Caption(text=clean(text), **changes), CONFIG)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", GOOD)
def test_good_captions_pass(text: str) -> None:
    assert of(text) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "says nothing"),
        ("This is a picture of something.", "says nothing"),
        ("The image shows several objects in a scene", "says nothing"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("Sorry! I am unable to view pictures of people", "refusal"),
        ("As an AI language model, I do not see pictures.", "refusal"),
        ("Well, I cannot see the picture that you mean", "refusal"),
        ("No image was provided, so there is no caption", "refusal"),
        ("抱歉，我无法描述这张图片。", "refusal"),
        ("a dog dog dog dog on a lawn", "repetition"),
        ("a cat on a mat and a cat on a mat and a cat on a mat", "repetition"),
        ("一只红色的狐狸坐在雪地里", "language"),
        ("Красный квадрат на белом фоне", "language"),
        ("fox", "length"),
        (" ".join(f"word{number}" for number in range(121)), "length"),
    ],
)
def test_bad_captions_are_named(text: str, reason: str) -> None:
    assert of(text) == reason


def test_an_answer_cut_off_is_named_first() -> None:
    assert of(GOOD[0], complete=False) == "cut off"


def test_what_the_model_says_without_looking_says_nothing() -> None:
    assert of("A red square.", blind="a red square") == "says nothing"
    assert of("A red square.", blind="a blue square") == ""


def test_chinese_captions_pass_where_they_are_wanted() -> None:
    config = FilterConfig(language="zh", least_words=4)
    assert verdict(Caption(text="一只红色的狐狸坐在雪地里"), config) == ""
    assert verdict(Caption(text="A red fox in the snow"), config) == "language"
    assert verdict(Caption(text="这是一张图片"), config) == "says nothing"
    assert verdict(Caption(text="A красный fox"), FilterConfig(language="any")) == ""


@settings(deadline=None)
@given(st.text())
def test_cleaning_is_idempotent_and_every_text_has_one_verdict(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert "\n" not in once
    reason = verdict(Caption(text=once), CONFIG)
    failing = [name for name, fails in FILTERS.items() if fails(Caption(text=once), CONFIG)]
    assert reason == (failing[0] if failing else "")


@settings(deadline=None)
@given(st.text(), st.sampled_from(['"{}"', "“{}”", "Caption: {}", "  {}\n", 'Description: "{}"']))
def test_what_is_no_part_of_the_caption_goes(text: str, around: str) -> None:
    inner = clean(text)
    if not set(inner) & set('"“”'):
        assert clean(around.format(inner)) == inner


@settings(deadline=None)
@given(WORDS)
def test_a_text_said_four_times_is_a_repetition(found: list[str]) -> None:
    assert FILTERS["repetition"](Caption(text=" ".join(found * 4)), CONFIG)


@settings(deadline=None)
@given(st.text(), st.integers(1, 5), st.integers(0, 5))
def test_wider_limits_never_drop_more(text: str, least: int, more: int) -> None:
    caption = Caption(text=text)
    narrow = FilterConfig(least_words=least + more, most_words=20)
    if not FILTERS["length"](caption, narrow):
        assert not FILTERS["length"](caption, FilterConfig(least_words=least, most_words=20 + more))
    assert len(words(text)) == len(words(text.upper().lower())) or not text.isascii()


@settings(deadline=None)
@given(st.lists(st.sampled_from(("A dog.", "a dog", "a cat", "!!", "狗"))), st.integers(1, 4))
def test_a_caption_stays_for_so_many_pictures(texts: list[str], equal: int) -> None:
    over = too_often(texts, equal)
    kept = [text for text, drop in zip(texts, over, strict=True) if not drop]
    dogs = [text for text in texts if "dog" in text]
    assert sum("dog" in text for text in kept) == min(equal, len(dogs))
    assert over[: len(texts) // 2] == too_often(texts[: len(texts) // 2], equal)  # later ones do not matter


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="most_words 1; expected at least 2"):
        FilterConfig(most_words=1)
    with pytest.raises(ConfigError, match="expected shares between 0 and 1"):
        FilterConfig(share=1.5)
