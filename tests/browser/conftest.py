"""A browser for all tests of this folder, and pages that record what they ask for and what goes wrong in them."""

import contextlib

import pytest
from composing_site import launch, served


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """One page for all tests that are content with the usual answers; every browser context has a desk of its own."""
    with served(tmp_path_factory.mktemp("site")) as address:
        yield address


@pytest.fixture(scope="session")
def window(browser):
    """A window for most tests: its tabs share the browser's cache and nothing else that the page knows of."""
    with contextlib.closing(browser.new_context(viewport={"width": 1360, "height": 900})) as context:
        yield context


@pytest.fixture
def visit(browser, window):
    """Opens an address in a tab of its own; fails the test if its scripts fail or another host is asked."""
    opened, faults = [], []

    def open_page(address, **options):
        context = browser.new_context(**options) if options else window
        page = context.new_page()
        opened.append(context if options else page)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))

        def request(asked):
            if not asked.url.startswith((address, "data:", "blob:")):
                faults.append(f"another host: {asked.url}")

        page.on("request", request)
        page.goto(address)
        return page

    yield open_page
    for one in opened:
        one.close()
    assert not faults, "\n".join(faults)
