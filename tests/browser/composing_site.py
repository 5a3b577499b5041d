"""The page on a free port, with a scripted model and a gallery of the example pictures."""

import contextlib
import copy
import re
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

EXAMPLES = Path(__file__).parents[2] / "examples"
CREDIT = {
    "bear": ("a photographer on Flickr", "CC BY 2.0", "COCO 285"),
    "cat-and-bird": ("a photographer on Flickr", "CC BY 2.0", "COCO 196393"),
    "hat": ("Alexey Grigorev and contributors", "CC0 1.0", "clothing-dataset-small"),
    "shoes": ("Alexey Grigorev and contributors", "CC0 1.0", "clothing-dataset-small"),
    "t-shirt": ("Alexey Grigorev and contributors", "CC0 1.0", "clothing-dataset-small"),
    "pants": ("Alexey Grigorev and contributors", "CC0 1.0", "clothing-dataset-small"),
    "pepper": ("Mozilla", "Apache-2.0", "FxEmoji"),
    "lollipop": ("Mozilla", "Apache-2.0", "FxEmoji"),
}
CAPTIONS = {
    "hat": "a hat against the sun",
    "shoes": "shoes for a long walk",
    "t-shirt": "a light t-shirt",
    "pants": "pants for cool mornings",
    "pepper": "a red pepper for lunch",
    "lollipop": "a lollipop for the way back",
    "bear": "a brown bear outdoors in the grass",
    "cat-and-bird": "a cat and a bird at a window",
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
    "write": [STORY, "In the evening the village lights came on one after another.\nWe took the shoes off first."],
    "spot": "<Seg1>, <Seg2>",
    "caption": ['shoes for a long walk"', 'a brown bear in the grass"', 'a pepper for lunch"'],
    "select": ["A", "A", "B"],
    "expand": "Good shoes matter more than anything else you carry, and more than you think when you pack.",
    "rewrite": "Nothing you carry matters as much as what you wear on your feet.",
    "abbreviate": "Wear good shoes.",
    "insert": "A stream crossed the path, and we filled the bottles.",
}


class Examples:
    """The example pictures, ranked by shared words."""

    def __init__(self):
        self.pictures = [
            Picture(
                id=name,
                path=str(EXAMPLES / f"{name}.{'jpg'}"),
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
    model = ScriptedModel(copy.deepcopy({**ANSWERS, **(answers or {})}), pace)
    shelf = Shelf(Path(folder) / "uploads", [EXAMPLES])
    studio = Studio(model=model, style=SECOND, gallery=gallery or Examples(), shelf=shelf)
    site = compose_site(studio, Path(folder) / "downloads", language)
    server = uvicorn.Server(uvicorn.Config(site, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
