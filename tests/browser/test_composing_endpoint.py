"""`vedere serve compose --endpoint` as a user starts it, in a browser: an endpoint writes, and what it does wrong is words."""

import re

import pytest
from composing_site import STORY, running
from playwright.sync_api import expect
from test_composing import PARAGRAPHS, download, pick_paragraph, really_shown, shown, texts, write

import tiny_models
from fake_endpoint import said, serve, streamed

CHINESE = "山路从村子的尽头开始。\n鞋子比什么都重要。\n草地上有一头熊。"
ANSWERS = (  # a part of the question, and what a talkative model answers
    ("The article begins like this", "## And then\n1. In the evening the lights came on.\n2. We took the shoes off."),
    ("Write an article for", "# A day in the hills\n\n" + STORY.replace("\n", "\n\n")),
    ("根据以下标题写一篇文章", "**西湖**\n" + CHINESE),
    ("should a picture stand?", "I would put pictures after <Seg1> and after <Seg2>."),
    ("之后适合插入图片", "<Seg1>"),
    ("之后有一张图片", "“一双鞋”"),
    ("stands after <Seg1>. What", 'Caption: "black leather shoes"'),
    ("stands after <Seg2>. What", '"A brown bear outdoors in the grass."'),
    ("stands after <Seg3>. What", "A red pepper"),
    ("Which candidate suits", "The best one is B."),
    ("哪张候选图片最适合", "选B。"),
    ("Expand this paragraph", "Good shoes matter, and so do socks."),
    ("Rewrite this paragraph", "Nothing matters as much as shoes."),
    ("Shorten this paragraph", "Shoes matter."),
    ("Write one paragraph that stands between", "A stream crossed the path."),
)


def asked(body):
    """The words of a question."""
    ((_, content),) = [(message["role"], message["content"]) for message in body["messages"]]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def pictures(body):
    content = body["messages"][0]["content"]
    return [] if isinstance(content, str) else [part for part in content if part["type"] == "image_url"]


def knowing(_, body):
    question = asked(body)
    return said(next(answer for part, answer in ANSWERS if part in question))


def remote(endpoint, *more):
    given = ["--endpoint", endpoint.url, "--endpoint-model", "writer", "--retries", "0"]
    return (*given, "--similarity", "-1", *more)  # four candidates, whatever they are


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the gallery's index, so that it is made once."""
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def started(place):
    """(endpoint, address) of one server for most tests."""
    with pytest.MonkeyPatch.context() as patch, serve(knowing) as endpoint:
        patch.setenv("OPENAI_API_KEY", "s3cret")
        with running(place, *remote(endpoint)) as address:
            yield endpoint, address


@pytest.fixture
def site_of(started):
    """The same with nothing asked yet, and the usual answers."""
    endpoint, address = started
    endpoint.script, endpoint.pace = knowing, 0.0
    endpoint.asked.clear()
    return endpoint, address


def test_an_endpoint_writes_places_captions_chooses_and_edits(site_of, visit):
    endpoint, address = site_of
    page = write(visit(address))
    assert texts(page) == PARAGRAPHS  # without the heading that was written over them
    captions = page.locator(".sheet figcaption")
    expect(captions).to_have_count(2)
    expect(captions.nth(0)).to_contain_text("black leather shoes")
    expect(captions.nth(1)).to_contain_text("A brown bear outdoors in the grass.")
    assert all(really_shown(shown(page, number)) for number in (1, 2))
    pick_paragraph(page, 1)
    buttons = page.locator("#candidates button")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")  # B, as the endpoint said
    steps = [asked(body) for body in endpoint.asked]
    assert len(steps) == 6
    offered = buttons.count()
    assert [len(pictures(body)) for body in endpoint.asked[:5]] == [0, 0, 0, 0, offered]
    assert len(pictures(endpoint.asked[5])) > 1  # the picture chosen before stands in the context
    assert steps[4].endswith("Which candidate suits this place best? Answer with one letter.")
    assert {head["Authorization"] for head in endpoint.headers} == {"Bearer s3cret"}
    assert {body["model"] for body in endpoint.asked} == {"writer"}

    offer = page.locator("#box-proposal textarea")
    page.locator("#box-support textarea").fill("socks")
    for operation, question, answer in (
        ("expand", "Expand this paragraph.\n", "Good shoes matter, and so do socks."),
        ("rewrite", "Rewrite this paragraph.\n", "Nothing matters as much as shoes."),
        ("abbreviate", "Shorten this paragraph.\n", "Shoes matter."),
    ):
        page.locator(f"#do-{operation}").click()
        expect(offer).to_have_value(answer)
        material = "" if operation == "abbreviate" else "\nUse this material: socks"
        assert asked(endpoint.asked[-1]) == f"{question}{PARAGRAPHS[1]}{material}"
    page.locator("#do-accept").click()
    expect(page.locator('[data-place="1"] p')).to_have_text("Shoes matter.")
    page.get_by_role("button", name="New paragraph").click()
    page.locator("#box-insert-text textarea").fill("a stream")
    page.locator("#do-insert-write").click()
    expect(offer).to_have_value("A stream crossed the path.")
    assert f"First: Shoes matter.\nSecond: {PARAGRAPHS[2]}\nIt is about: a stream" in asked(endpoint.asked[-1])
    page.locator("#do-discard").click()
    page.locator("#do-regenerate").click()
    expect(offer).to_have_value("In the evening the lights came on.")
    assert asked(endpoint.asked[-1]).endswith(f"{PARAGRAPHS[0]}\n")  # what stands before the paragraph
    page.locator("#do-discard").click()
    page.locator("#do-proceed").click()
    expect(page.locator(".sheet section")).to_have_count(6)
    assert texts(page)[4:] == ["In the evening the lights came on.", "We took the shoes off."]
    pick_paragraph(page, 3)
    page.locator("#do-add").click()
    expect(page.locator('[data-place="3"] figcaption')).to_contain_text("A red pepper")
    html = download(page, "#export-html").path().read_text("utf-8")
    assert html.count("data:image/jpeg;base64,") == 3
    assert "s3cret" not in html + page.content()


def test_the_language_of_the_title_is_that_of_the_questions(site_of, visit):
    endpoint, address = site_of
    page = write(visit(address), "一双鞋")
    assert texts(page) == CHINESE.split("\n")
    expect(page.locator('[data-place="1"] figcaption')).to_contain_text("一双鞋")  # found among English captions
    assert really_shown(shown(page, 1))
    assert all(re.search("[\u4e00-\u9fff]", asked(body)) for body in endpoint.asked)


def test_an_article_grows_while_an_endpoint_streams_it_and_can_be_stopped(site_of, visit):
    endpoint, address = site_of
    endpoint.script, endpoint.pace = lambda *_: streamed(*re.findall(r"\S+\s*", STORY)), 0.05
    page = visit(address)
    page.locator("#box-title textarea").fill("A day")
    page.locator("#do-generate").click()
    expect(page.locator("#status .on")).to_contain_text("Writing")
    expect(page.locator(".sheet section")).to_have_count(1)  # while the others are not there yet
    page.locator("#do-stop").click()
    expect(page.locator("#tools")).to_be_visible()
    written = "\n".join(texts(page))
    assert written
    assert STORY.startswith(written)
    assert len(written) < len(STORY)
    assert [body.get("stream") for body in endpoint.asked] == [True]


def test_what_an_endpoint_does_wrong_is_words_and_costs_nothing(site_of, visit):
    endpoint, address = site_of
    texts_that_fail = [(500, {}, b"out of memory"), (401, {}, b"who are you"), (200, {}, b"<html>")]
    replies = iter([*(reply for reply in texts_that_fail for _ in range(2)), *[knowing] * 2, (400, {}, b"too long")])

    def failing(number, body):
        reply = next(replies, knowing)
        return reply(number, body) if callable(reply) else reply

    endpoint.script = failing
    page = visit(address)
    page.locator("#box-title textarea").fill("A day")
    for message in (
        "status 500: out of memory",
        "is the key in OPENAI_API_KEY right?",
        "a body that is no chat completion",
        "the endpoint gave no answer to the step 'caption': refused with status 400: too long",
    ):
        page.locator("#do-generate").click()
        expect(page.locator("#status .wrong")).to_contain_text(message)
        expect(page.locator("#box-title textarea")).to_have_value("A day")
    assert texts(page) == PARAGRAPHS  # what was written before the error stays
    page.locator("#do-illustrate").click()  # and the rest is made up for
    expect(page.locator(".sheet figure img")).to_have_count(2)


def test_an_endpoint_writes_and_a_local_model_chooses_so_that_no_picture_leaves(place, visit, tmp_path):
    small = tiny_models.tiny_directory(tmp_path / "tiny", max_positions=4096)
    with serve(knowing) as endpoint, running(place, *remote(endpoint, "--model", str(small))) as address:
        page = write(visit(address))
        expect(page.locator(".sheet figure img")).to_have_count(2)
        assert len(endpoint.asked) == 4  # text, places, two captions
        assert not any(pictures(body) for body in endpoint.asked)
        assert not any("Which candidate" in asked(body) for body in endpoint.asked)
