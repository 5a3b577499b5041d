"""The page in a real browser, from a title to a downloaded file."""

import contextlib
import json
import re
import zipfile

import pytest
from composing_site import ANSWERS, EXAMPLES, STORY, served
from playwright.sync_api import expect

PARAGRAPHS = STORY.split("\n")


def write(page, title="A day in the hills"):
    page.locator("#box-title textarea").fill(title)
    page.locator("#do-generate").click()
    expect(page.locator("#tools")).to_be_visible()
    return page


def pick_paragraph(page, number):
    page.locator(f'[data-place="{number}"] p').click()
    expect(page.locator("#heading")).to_have_text(f"Paragraph {number + 1}")


def texts(page):
    return [text.strip() for text in page.locator(".sheet section p").all_inner_texts()]


def shown(page, place):
    return page.locator(f'[data-place="{place}"] figure img')


def really_shown(image):
    """The picture was loaded, not only asked for."""
    expect(image).to_be_visible()
    image.scroll_into_view_if_needed()
    return image.evaluate("async (one) => { await one.decode(); return one.naturalWidth; }")


def download(page, button):
    with page.expect_download() as waiting:
        page.locator(button).click()
    return waiting.value


def upload(page, button, path):
    with page.expect_file_chooser() as chooser:
        page.locator(button).click()
    chooser.value.set_files(path)


def test_from_a_title_to_a_file(site, visit):
    page = write(visit(site))
    expect(page.locator(".sheet h1")).to_have_text("A day in the hills")
    assert texts(page) == PARAGRAPHS
    assert [really_shown(shown(page, place)) > 100 for place in (1, 2)] == [True, True]
    expect(page.locator(".sheet figure")).to_have_count(2)
    expect(page.locator('[data-place="1"] figcaption')).to_contain_text(
        "Alexey Grigorev"
    )  # who has to be named is named

    pick_paragraph(page, 1)  # candidates of the selected place; a click swaps
    buttons = page.locator("#candidates button")
    expect(buttons).to_have_count(4)
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
    before = shown(page, 1).get_attribute("src")
    buttons.nth(2).click()
    expect(buttons.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(shown(page, 1)).not_to_have_attribute("src", before)
    swapped = shown(page, 1).get_attribute("src")

    page.locator("#box-text textarea").fill("Shoes first.")
    page.locator("#do-apply").click()
    expect(page.locator('[data-place="1"] p')).to_have_text("Shoes first.")
    page.locator("#do-undo").click()
    expect(page.locator('[data-place="1"] p')).to_have_text(PARAGRAPHS[1])
    expect(page.locator("#box-text textarea")).to_have_value(PARAGRAPHS[1])
    expect(shown(page, 1)).to_have_attribute("src", swapped)  # one step back, not two
    page.locator("#do-undo").click()
    expect(shown(page, 1)).to_have_attribute("src", before)
    page.locator("#do-redo").click()
    page.locator("#do-redo").click()
    expect(page.locator('[data-place="1"] p')).to_have_text("Shoes first.")

    file = download(page, "#export-html")
    assert file.suggested_filename == "article.html"
    html = file.path().read_text("utf-8")
    assert "<h1>A day in the hills</h1>" in html
    assert html.index("Shoes first.") < html.index("data:image/jpeg;base64,") < html.index(PARAGRAPHS[2][:30])
    assert html.count("<img ") == 2
    assert "clothing-dataset-small, CC0 1.0" in html
    expect(page.locator("#status")).to_contain_text("article.html is ready")


def test_the_other_exports_and_a_saved_article_that_is_opened_elsewhere(site, visit, tmp_path):
    page = write(visit(site))
    with zipfile.ZipFile(download(page, "#export-markdown").path()) as archive:
        assert sorted(archive.namelist()) == [
            "article/",
            *(f"article/{n}" for n in ("article.md", "picture-1.jpg", "picture-2.jpg")),
        ]
        assert "![shoes for a long walk](<picture-1.jpg>)" in archive.read("article/article.md").decode()
    data = json.loads(download(page, "#export-json").path().read_text("utf-8"))
    assert [section["text"] for section in data["sections"]] == PARAGRAPHS
    assert data["sections"][1]["image"]["candidates"][0]["licence"] == "CC0 1.0"
    assert data["credits"][0] == "Alexey Grigorev and contributors, clothing-dataset-small, CC0 1.0"
    assert zipfile.is_zipfile(download(page, "#export-docx").path())

    pick_paragraph(page, 0)
    page.locator("#box-text textarea").fill("Another beginning.")
    saved = download(page, "#do-save")  # what was typed and not yet saved is in it
    path = tmp_path / saved.suggested_filename
    saved.save_as(path)
    other = visit(site)
    upload(other, "#open-first", path)
    expect(other.locator('[data-place="0"] p')).to_have_text("Another beginning.")
    assert really_shown(shown(other, 2))
    other.locator("#do-undo").click()  # the history came along
    expect(other.locator('[data-place="0"] p')).to_have_text(PARAGRAPHS[0])


def test_operations_on_paragraphs(site, visit):
    page = write(visit(site))
    pick_paragraph(page, 1)
    page.locator("#do-abbreviate").click()
    offer = page.locator("#box-proposal textarea")
    expect(offer).to_have_value(ANSWERS["abbreviate"])
    assert texts(page) == PARAGRAPHS  # a proposal changes nothing
    page.locator("#do-discard").click()
    expect(offer).not_to_be_visible()
    page.locator("#do-rewrite").click()
    expect(offer).to_have_value(ANSWERS["rewrite"])
    offer.fill("My own version of it.")
    page.locator("#do-accept").click()
    expect(page.locator('[data-place="1"] p')).to_have_text("My own version of it.")
    assert really_shown(shown(page, 1))  # the picture stays with its paragraph

    page.get_by_role("button", name="New paragraph").click()
    page.locator("#box-insert-text textarea").fill("a stream")
    page.locator("#do-insert-write").click()
    expect(offer).to_have_value(ANSWERS["insert"])
    page.locator("#do-accept").click()
    expect(page.locator('[data-place="2"] p')).to_have_text(ANSWERS["insert"])
    expect(page.locator("#heading")).to_have_text("Paragraph 3")
    page.locator("#box-insert-text textarea").fill("Written by hand.")
    page.locator("#do-insert-own").click()
    expect(page.locator('[data-place="3"] p')).to_have_text("Written by hand.")
    page.locator("#do-delete").click()
    expect(page.locator(".sheet section")).to_have_count(5)
    page.locator("#do-proceed").click()
    expect(page.locator(".sheet section")).to_have_count(7)
    page.locator("header.block h1").click()
    page.locator("#box-text textarea").fill("Another title")
    page.locator("#do-apply").click()
    expect(page.locator(".sheet h1")).to_have_text("Another title")


def test_pictures_are_added_searched_brought_and_removed(site, visit):
    page = write(visit(site))
    pick_paragraph(page, 3)
    page.locator("#do-add").click()
    expect(page.locator('[data-place="3"] figcaption')).to_contain_text("a pepper for lunch")
    page.locator("#do-remove").click()
    expect(shown(page, 3)).to_have_count(0)
    page.locator("#do-undo").click()
    expect(shown(page, 3)).to_have_count(1)
    pick_paragraph(page, 0)
    page.locator("#box-caption textarea").fill("a lollipop")
    page.locator("#do-search").click()
    expect(page.locator('[data-place="0"] figure')).to_have_count(1)
    before = page.locator('[data-place="0"] figure').inner_html()
    upload(page, "#do-upload", EXAMPLES / "drawing.png")
    expect(page.locator("#candidates button").first).to_have_attribute("aria-pressed", "true")
    expect(page.locator('[data-place="0"] figure')).not_to_have_text(re.escape(before))
    assert really_shown(shown(page, 0))


def test_own_pictures_illustrate_the_article(site, visit):
    page = visit(site)
    page.locator("#own input").set_input_files([EXAMPLES / "bear.jpg", EXAMPLES / "hat.jpg"])
    expect(page.locator("#own")).to_contain_text("hat")
    write(page)
    pick_paragraph(page, 1)
    expect(page.locator("#candidates button")).to_have_count(2)
    assert really_shown(shown(page, 1))
    assert really_shown(shown(page, 2))


HOSTILE = (
    "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> ${document.title='broken'} "
    "{{#each value}}{{this}}{{/each}} &amp; </p></article><b>bold</b>"
)


def test_markup_in_texts_is_text(tmp_path, visit, browser):
    answers = {
        "write": f"{HOSTILE}\nSecond.",
        "spot": "<Seg0>",
        "caption": f'{HOSTILE.replace(chr(34), chr(39))}"',
        "rewrite": HOSTILE,
    }
    with served(tmp_path, answers=answers) as address:
        page = write(visit(address), HOSTILE)
        expect(page.locator(".sheet h1")).to_have_text(HOSTILE)
        assert texts(page) == [HOSTILE, "Second."]
        pick_paragraph(page, 0)
        page.locator("#do-rewrite").click()
        expect(page.locator("#box-proposal textarea")).to_have_value(HOSTILE)
        page.wait_for_timeout(300)
        assert page.title() == "vedere compose"
        assert page.locator("#sheet script, #sheet b, #sheet img[src=x]").count() == 0
        download(page, "#export-html").save_as(tmp_path / "article.html")
    with contextlib.closing(browser.new_page()) as alone:
        alone.goto((tmp_path / "article.html").as_uri())
        assert alone.title() == HOSTILE
        assert alone.locator("script, b, img[src=x]").count() == 0


def test_errors_are_words_and_nothing_is_lost(tmp_path, visit):
    answers = {
        "write": [{"error": "the endpoint is gone; start it again"}, "", STORY],
        "caption": {"error": "no memory"},
    }
    with served(tmp_path, answers=answers) as address:
        page = visit(address)
        page.locator("#box-outline textarea").fill("first this, then that")
        page.locator("#box-title textarea").fill("A day")
        for message in ("the endpoint is gone; start it again", "the model wrote no text", "no memory"):
            page.locator("#do-generate").click()
            expect(page.locator("#status .wrong")).to_contain_text(message)
            expect(page.locator("#status .wrong")).to_contain_text("Nothing was lost")
            expect(page.locator("#box-title textarea")).to_have_value("A day")
            expect(page.locator("#box-outline textarea")).to_have_value("first this, then that")
        assert texts(page) == PARAGRAPHS  # what was written before the last error stays


def test_a_server_that_is_gone_and_comes_back_costs_nothing(site, visit):
    page = visit(site)
    page.locator("#box-outline textarea").fill("first this, then that")
    write(page)
    pick_paragraph(page, 0)
    page.locator("#box-text textarea").fill("Not yet saved.")
    page.route("**/gradio_api/**", lambda route: route.abort())
    page.locator("#do-apply").click()
    expect(page.get_by_text("Connection to the server was lost")).to_be_visible()
    expect(page.locator("#box-text textarea")).to_have_value("Not yet saved.")
    with page.expect_navigation():  # the page is opened anew when the server answers again
        page.unroute("**/gradio_api/**")
    expect(page.locator("#heading")).to_have_text("Paragraph 1")
    expect(page.locator("#box-text textarea")).to_have_value("Not yet saved.")
    page.locator("#do-close").click()
    expect(page.locator('[data-place="0"] p')).to_have_text("Not yet saved.")
    page.locator("#brief .label-wrap").click()
    expect(page.locator("#box-title textarea")).to_have_value("A day in the hills")
    expect(page.locator("#box-outline textarea")).to_have_value("first this, then that")
    page.reload()
    pick_paragraph(page, 0)
    page.locator("#do-undo").click()
    expect(page.locator("#box-text textarea")).to_have_value(PARAGRAPHS[0])  # what was taken over is not typed in again


def test_an_empty_title_a_damaged_picture_and_a_foreign_file_are_explained(site, visit, tmp_path):
    page = visit(site)
    page.locator("#do-generate").click()
    expect(page.locator("#status .wrong")).to_contain_text("the article has no title")
    page.locator("#box-title textarea").fill("long " * 2000)
    page.locator("#do-generate").click()
    expect(page.locator("#status .wrong")).to_contain_text("a title of 10000 characters; expected at most 1000")
    page.locator("#do-language").click()  # also in the other language, with what was typed still there
    expect(page.locator("#box-title textarea")).to_have_value("long " * 2000)
    page.locator("#do-generate").click()
    expect(page.locator("#status .wrong")).to_contain_text("标题")
    page.locator("#do-language").click()
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    page.locator("#own input").set_input_files(bad)
    expect(page.locator("#own")).to_contain_text("broken")
    page.locator("#box-title textarea").fill("A day")
    page.locator("#do-generate").click()
    expect(page.locator("#status .wrong")).to_contain_text("'broken.png' is no picture")
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    upload(page, "#open-first", other)
    expect(page.locator("#status .wrong")).to_contain_text("version None of an article")


def test_a_reload_finds_the_article_and_two_tabs_are_two_desks(site, visit):
    page = write(visit(site))
    pick_paragraph(page, 2)
    page.reload()
    expect(page.locator("#heading")).to_have_text("Paragraph 3")
    assert texts(page) == PARAGRAPHS
    other = visit(site)
    expect(other.locator("#do-generate")).to_be_enabled()
    assert other.locator(".sheet").count() == 0


def test_an_article_is_watched_stopped_and_followed_after_a_reload(tmp_path, visit):
    with served(tmp_path, pace=0.05) as address:
        page = visit(address)
        page.locator("#box-title textarea").fill("A day")
        page.locator("#do-generate").click()
        expect(page.locator("#status .on")).to_contain_text("Writing")
        expect(page.locator(".sheet section")).to_have_count(
            1
        )  # the first paragraph while the others are not there yet
        page.reload()
        expect(page.locator("#status .on")).to_contain_text("Writing")
        page.locator("#do-stop").click()
        expect(page.locator("#tools")).to_be_visible()
        written = texts(page)
        assert 1 <= len(written) <= len(PARAGRAPHS)
        assert STORY.startswith("\n".join(written))
        assert page.locator("figure").count() == 0


def test_phone(site, visit):
    page = write(visit(site, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    size = page.locator('[data-place="0"] p').evaluate("(one) => parseFloat(getComputedStyle(one).fontSize)")
    assert size >= 16
    expect(page.locator("#panel")).not_to_be_visible()
    page.locator('[data-place="1"] p').tap()
    expect(page.locator("#panel")).to_be_visible()
    box = page.locator("#panel").bounding_box()
    assert box["y"] + box["height"] == pytest.approx(844, abs=2)  # at the bottom, over the article
    assert box["y"] > 300
    page.wait_for_timeout(500)
    assert page.locator('[data-place="1"] p').bounding_box()["y"] < box["y"]  # what is worked on is seen
    page.locator("#candidates button").nth(1).tap()
    expect(page.locator("#candidates button").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#do-close").tap()
    expect(page.locator("#panel")).not_to_be_visible()


def test_chinese(site, visit):
    page = write(visit(site))
    pick_paragraph(page, 1)
    page.locator("#box-text textarea").fill("还没有保存")
    page.locator("#do-language").click()
    expect(page.locator("#heading")).to_have_text("第2段")
    expect(page.locator("#do-rewrite")).to_have_text("改写")
    expect(page.locator("#do-language")).to_have_text("English")
    expect(page.locator('[data-place="1"] p')).to_have_text("还没有保存")
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.locator("#do-language").click()
    expect(page.locator("#do-rewrite")).to_have_text("Rewrite")


def test_keys(site, visit):
    page = write(visit(site))
    page.locator('[data-place="0"] .mark').focus()
    page.keyboard.press("Enter")
    expect(page.locator("#heading")).to_have_text("Paragraph 1")
    page.locator("#do-delete").click()
    expect(page.locator(".sheet section")).to_have_count(3)
    page.locator("body").press("Control+z")
    expect(page.locator(".sheet section")).to_have_count(4)
    pick_paragraph(page, 0)
    page.keyboard.press("Escape")
    expect(page.locator("#work")).not_to_be_visible()


def test_files_of_the_server_cannot_be_asked_for(site, visit):
    page = visit(site)
    answer = page.request.get(site)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path in ("pictures/0", "downloads/0", f"gradio_api/file={EXAMPLES / 'bear.jpg'}"):
        assert page.request.get(site + path).status in (403, 404)
