"""Logs of evaluations in Inspect's own viewer: a tiny run of a scripted model, opened in the browser."""

import base64
import contextlib
import io
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from playwright.sync_api import expect

import scripted
from vedere.evals.inspect_media import FRAME_SIDE, PICTURE_SIDE
from vedere.evals.items import Settings, thumbnail
from vedere.evals.open_suite import data_folder, open_suite

STARTING = 60.0  # seconds


@contextlib.contextmanager
def viewer(logs, home):
    """``inspect view`` of a folder on a free port; its own files go to ``home``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "inspect_ai", "view", "start", "--log-dir", str(logs), "--port", str(port)]
    places = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"), str(home))
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **places}
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + STARTING
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, f"inspect view ended with status {process.returncode}"
                assert time.monotonic() < end, f"inspect view did not answer within {STARTING:.0f} s"
                time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two questions about pictures, the first answered rightly, and one about a clip, in one folder of logs."""
    folder = tmp_path_factory.mktemp("runs")
    scripted.start({"model": lambda text, messages: "It is B."})
    with ThreadPoolExecutor(1) as pool:  # the browser's driver has this thread's event loop
        for name, settings in (("open-images", Settings(limit=2)), ("open-videos", Settings(limit=1, frames=4))):
            pool.submit(scripted.run, name, data_folder(), folder / name, settings=settings).result()
    return folder


def items(name, count):
    return open_suite(name).load(data_folder(), Settings())[:count]


def shown_pictures(page):
    """The pictures of the page's prompt, as the browser has them."""
    found = page.locator('img[src^="data:image/"]')
    expect(found.first).to_be_visible()
    return [Image.open(io.BytesIO(base64.b64decode(one.get_attribute("src").partition(",")[2]))) for one in found.all()]


def open_sample(page, item):
    page.get_by_text(item.question, exact=True).first.click()
    expect(page.get_by_text("It is B.").first).to_be_visible()


def test_a_log_shows_prompt_picture_answer_and_score(logs, visit, tmp_path):
    right, wrong = items("open-images", 2)
    assert (right.target, wrong.target == "B") == ("B", False)
    with viewer(logs / "open-images" / "logs", tmp_path) as address:
        page = visit(address)
        for item, score in ((right, "1"), (wrong, "0")):
            row = page.locator('[role="row"]').filter(has_text=item.id)
            expect(row).to_contain_text(item.question)
            assert row.inner_text().split()[-1] == score
        expect(page.get_by_text("scripted/model").first).to_be_visible()
        open_sample(page, right)
        for text in (right.question, *(f"{letter}. {option}" for letter, option in right.options.items())):
            expect(page.get_by_text(text).first).to_be_visible()
        expect(
            page.get_by_text("Answer with the option's letter from the given choices directly.").first
        ).to_be_visible()
        (picture,) = shown_pictures(page)
        original = right.media[0].images()[0]
        assert max(picture.size) == PICTURE_SIDE
        assert picture.tobytes() == Image.open(io.BytesIO(thumbnail(original, PICTURE_SIDE))).tobytes()


def test_a_log_shows_the_frames_of_a_film(logs, visit, tmp_path):
    (item,) = items("open-videos", 1)
    with viewer(logs / "open-videos" / "logs", tmp_path) as address:
        page = visit(address)
        open_sample(page, item)
        expect(
            page.get_by_text("Select the best answer to the following multiple-choice question").first
        ).to_be_visible()
        frames = shown_pictures(page)
        assert len(frames) == 4
        assert {max(frame.size) for frame in frames} == {FRAME_SIDE}
        assert len({frame.tobytes() for frame in frames}) > 1
