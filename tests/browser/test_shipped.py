"""The page as it starts without a model of one's own: vedere-mini writes, the text itself finds the pictures."""

from composing_site import running
from playwright.sync_api import expect
from test_composing import pick_paragraph, really_shown, shown, texts

LONG = 300_000  # ms


def test_the_shipped_model_writes_and_the_page_shows_it(tmp_path, visit):
    with running(tmp_path) as address:
        page = visit(address)
        page.locator("#box-title textarea").fill("Cats and birds")
        page.locator("#do-generate").click()
        expect(page.locator("#tools")).to_be_visible(timeout=LONG)
        assert "cats" in " ".join(texts(page)).lower()
        figures = page.locator(".sheet figure")
        assert figures.count() >= 1
        expect(figures.first).to_contain_text("a cat and a bird at a window")
        expect(figures.first).to_contain_text("CC BY 2.0")
        place = int(page.locator(".sheet section:has(figure)").first.get_attribute("data-place"))
        assert really_shown(shown(page, place))
        pick_paragraph(page, place)
        page.locator("#do-abbreviate").click()
        offer = page.locator("#box-proposal textarea")
        expect(offer).to_be_visible(timeout=LONG)
        shorter = offer.input_value()
        assert len(shorter) > 0
        page.locator("#do-accept").click()
        expect(page.locator(f'[data-place="{place}"] p')).to_have_text(shorter)
        assert really_shown(shown(page, place))  # the picture stays with its paragraph
