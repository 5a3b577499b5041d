"""Pictures of the page for docs/composition.md: ``python tests/browser/shots.py FOLDER`` (``make browser-shots``)."""

import sys
import tempfile
from pathlib import Path

from composing_site import launch, running, served
from PIL import Image
from playwright.sync_api import sync_playwright


def settle(page):
    """Waits until all pictures are there and nothing moves."""
    page.wait_for_function("[...document.images].every((one) => one.complete)")
    page.wait_for_timeout(600)


def shoot(page, path):
    settle(page)
    page.screenshot(path=path)
    with Image.open(path) as image:  # a palette is enough for paper and ink, and a third of the size
        image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )
    print(path, path.stat().st_size)


def write(page, title="A day in the hills"):
    page.locator("#box-title textarea").fill(title)
    page.locator("#do-generate").click()
    page.locator("#tools").wait_for(state="visible", timeout=600_000)


def main(folder):
    """Writes article.png and phone.png, by a script, and mini.png, by vedere-mini."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as files, served(files) as address, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1240, "height": 820})
        page.goto(address)
        write(page)
        page.locator('[data-place="1"] p').click()
        page.locator("#work").wait_for(state="visible")
        page.mouse.move(5, 5)
        page.evaluate("scrollTo(0, 0)")
        shoot(page, folder / "article.png")
        phone = browser.new_page(viewport={"width": 390, "height": 780}, device_scale_factor=1)
        phone.goto(address)
        write(phone)
        phone.locator('[data-place="2"] p').click()
        phone.locator("#work").wait_for(state="visible")
        shoot(phone, folder / "phone.png")
        browser.close()
    with tempfile.TemporaryDirectory() as files, running(files) as address, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1240, "height": 820})
        page.goto(address)
        write(page, "Cats and birds")
        page.locator('[data-place="0"] p').click()
        page.locator("#work").wait_for(state="visible")
        page.locator("#do-abbreviate").click()
        page.locator("#offer").wait_for(state="visible", timeout=600_000)
        page.mouse.move(5, 5)
        shoot(page, folder / "mini.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
