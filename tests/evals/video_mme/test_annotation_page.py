"""The page for certificates in a real browser: a clip from the disk is marked, and what is saved is what is counted."""

import os
import shutil

import pytest
from stand_ins import media_id, write_clip, write_questions
from stand_ins import rows as question_rows

from vedere.evals.video_mme.annotation_page import annotation_page
from vedere.evals.video_mme.certificate import read_annotations
from vedere.evals.video_mme.questions import read_questions

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def page(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    made = tmp_path / "page.html"
    questions = read_questions(write_questions(tmp_path / "q.parquet", question_rows(2))).questions
    made.write_text(annotation_page(questions), encoding="utf-8")
    alone = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if alone else [])
        opened = browser.new_page()
        opened.set_default_timeout(120_000)
        opened.wrong = []
        opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
        opened.on("console", lambda line: opened.wrong.append(line.text) if line.type == "error" else None)
        opened.on("request", lambda ask: opened.wrong.append(ask.url) if ask.url[:4] == "http" else None)
        opened.goto(made.as_uri())
        yield opened
        browser.close()


def after(page, event, change):
    """Changes the video and waits for its event; `wait_for_function` would need eval, which the page forbids."""
    page.evaluate(
        "([event, change]) => new Promise(done => {"
        " const video = document.getElementById('video');"
        " video.addEventListener(event, () => done(), { once: true });"
        " if (change !== null) video.currentTime = change; else if (video.readyState > 0) done(); })",
        [event, change],
    )


def seek(page, seconds):
    after(page, "seeked", seconds)


def test_clips_are_marked_and_saved(page, tmp_path):
    assert page.inner_text("#text") == "What is seen in part 1 of film 1?"
    assert f"Open the file of video {media_id(1)}." in page.inner_text("#said")
    page.keyboard.press("i")
    assert page.inner_text("#said") == "Open the video first."
    film = write_clip(tmp_path / f"{media_id(1)}.mp4", frames=100)
    page.set_input_files("#files", str(film))
    after(page, "loadedmetadata", None)
    for start, end in ((0.5, 1.5), (1.2, 2.0), (3.0, 3.5)):
        seek(page, start)
        page.keyboard.press("i")
        seek(page, end)
        page.keyboard.press("o")
    assert page.inner_text("#total") == "2.0 s"
    assert page.locator("#clips tr").count() == 2
    seek(page, 0.2)
    page.keyboard.press("o")
    assert page.inner_text("#said") == "Say first where the clip begins (i)."
    page.click("#save")
    assert "Write your name first" in page.inner_text("#said")
    page.fill("#annotator", "Ana B")
    page.select_option("#question", "1")
    assert page.inner_text("#text") == "What is seen in part 2 of film 1?"
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "certificates-Ana-B.jsonl"
    download.value.save_as(tmp_path / "marks.jsonl")
    (one,) = read_annotations(tmp_path / "marks.jsonl")
    assert (one.question_id, one.annotator, one.clips) == ("001-1", "Ana B", ((0.5, 2.0), (3.0, 3.5)))
    assert one.video_seconds == pytest.approx(4.0, abs=0.1)
    page.reload()  # marks stay in the browser
    assert page.inner_text("#total") == "2.0 s"
    page.click("#clips button >> nth=0")
    assert page.inner_text("#total") == "0.5 s"
    assert page.inner_text("#progress") == "1 of 6 marked"
    assert not page.wrong
