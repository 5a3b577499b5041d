"""The page on a free port, with a scripted model and a gallery of the example pictures."""

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import uvicorn

from vedere.compose.article import Picture
from vedere.compose.prompts import SECOND
from vedere.compose.scripted import ScriptedModel
from vedere.serve.desk import Studio
from vedere.serve.shelf import Shelf
from vedere.serve.site import compose_site

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EXAMPLES = Path(__file__).parents[2] / "examples"
GARMENT = ("Alexey Grigorev and contributors", "CC0 1.0", "clothing-dataset-small")
CREDIT = {
    "bear.jpg": ("a photographer on Flickr", "CC BY 2.0", "COCO 285"),
    "cat-and-bird.jpg": ("a photographer on Flickr", "CC BY 2.0", "COCO 196393"),
    **dict.fromkeys(("hat.jpg", "shoes.jpg", "t-shirt.jpg", "pants.jpg"), GARMENT),
    **dict.fromkeys(("pepper.jpg", "lollipop.jpg"), ("Mozilla", "Apache-2.0", "FxEmoji")),
    **dict.fromkeys(("chart.jpg", "crosses.jpg", "scene.png"), ("drawn by vedere", "CC0 1.0", "")),
}
CAPTIONS = {
    "hat.jpg": "a hat against the sun",
    "shoes.jpg": "shoes for a long walk",
    "t-shirt.jpg": "a light t-shirt",
    "pants.jpg": "pants for cool mornings",
    "pepper.jpg": "a red pepper for lunch",
    "lollipop.jpg": "a lollipop for the way back",
    "chart.jpg": "a chart",
    "crosses.jpg": "crosses",
    "scene.png": "a drawn scene",
    "bear.jpg": "a brown bear outdoors in the grass",
    "cat-and-bird.jpg": "a cat and a bird at a window",
}

STORY = (
    "The path begins behind the last house of the village, where the tarmac ends and the grass takes over. We left early, "
    "before the heat, with little more than water and a map that was older than both of us.\n"
    "Good shoes matter more than anything else you carry. By the second hour the track turns to loose stone, and every step "
    "reminds you of what you chose to put on in the morning.\n"
    "At the edge of the clearing we stopped. A bear stood in the high grass, not forty metres away, and looked at us with "
    "the patience of somebody who has nowhere else to be. Then it turned and was gone.\n"
    "Lunch was bread, cheese and a pepper, eaten on a warm rock. Nobody spoke much; it was not necessary."
)
ANSWERS = {
    "write": STORY,
    "spot": "<Seg1>, <Seg2>",
    "select": "A",
    "expand": "Good shoes matter more than anything else you carry, and more than you think when you pack.",
    "rewrite": "Nothing you carry matters as much as what you wear on your feet.",
    "abbreviate": "Wear good shoes.",
    "insert": "A stream crossed the path, and we filled the bottles.",
}


MORE = "In the evening the village lights came on one after another.\nWe took the shoes off first."
SHOWN = ("the old map", "shoes for a long walk", "a brown bear in the grass", "a pepper for lunch")


class Teller(ScriptedModel):
    """Says what the script says; goes on with a story that is there, and captions each place of it in its own words."""

    def answer(self, prompt):
        if prompt.step == "write" and STORY[:40] in prompt.text:
            return MORE
        if prompt.step == "caption" and "caption" not in self.answers:
            (place,) = re.findall(r"适合在<Seg(\d+)>后插入", prompt.text)
            return f'{SHOWN[int(place)]}"'
        return super().answer(prompt)


class Examples:
    """The example pictures, ranked by shared words."""

    def __init__(self):
        self.pictures = [
            Picture(
                id=name,
                path=str(EXAMPLES / name),
                caption=caption,
                attribution=CREDIT[name][0],
                licence=CREDIT[name][1],
                source=CREDIT[name][2],
            )
            for name, caption in CAPTIONS.items()
        ]

    def search(self, caption, count, exclude):
        asked = set(re.findall(r"\w{4,}", caption.lower()))
        left = [picture for picture in self.pictures if picture.id not in exclude]
        return sorted(left, key=lambda one: -len(asked & set(re.findall(r"\w{4,}", one.caption.lower()))))[:count]


@contextlib.contextmanager
def served(folder, *, answers=None, pace=0.0, gallery=None, language="en"):
    """The address of a running page."""
    model = Teller(copy.deepcopy({**ANSWERS, **(answers or {})}), pace)
    shelf = Shelf(Path(folder) / "uploads", [EXAMPLES])
    studio = Studio(model=model, style=SECOND, gallery=gallery or Examples(), shelf=shelf)
    site = compose_site(studio, folder, language)
    server = uvicorn.Server(uvicorn.Config(site, host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = server.force_exit = True  # open event streams are not waited for
        thread.join(timeout=10)


@contextlib.contextmanager
def running(folder, *options):
    """The address of `vedere serve compose` as a process, with the example pictures and their captions as its gallery."""
    gallery = Path(folder) / "gallery"
    gallery.mkdir(exist_ok=True)
    rows = []
    for name, caption in CAPTIONS.items():
        shutil.copy(EXAMPLES / name, gallery / name)
        attribution, licence, source = CREDIT[name]
        rows.append(
            {"file": name, "caption": caption, "author": attribution, "licence": licence, "source": source or "vedere"}
        )
    (gallery / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    index = Path(folder) / "index"
    command = [
        sys.executable,
        "-m",
        "vedere",
        "serve",
        "compose",
        "--gallery",
        gallery,
        "--index",
        index,
        "--port",
        "0",
    ]
    with subprocess.Popen(
        [*map(str, command), *options], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if address := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    break
            else:
                raise AssertionError(f"no address: {''.join(said)}")
            drain = threading.Thread(target=process.stderr.read, daemon=True)  # a full pipe would stop it
            drain.start()
            yield address[0]
        finally:
            process.terminate()
            process.wait(timeout=30)


def launch(playwright):
    """The first browser on the path; root may not use its sandbox."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, f"no browser ({', '.join(BROWSERS)}); 'make browser-test' says how to install one"
    alone = hasattr(os, "geteuid") and os.geteuid() == 0
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if alone else [])
