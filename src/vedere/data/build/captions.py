"""Photographs with human captions: the COCO 2017 pictures that are CC-BY or CC-BY-SA themselves.

About 120 photographs are far too few to learn captioning from: they show the model what real photographs look like and
give the caption form. Every sixth photograph is held out. Each training photograph gives several crops, each record one
of its five captions; licence and Flickr address go into every record.

Cost: about 10 ms a picture (JPEG decoding at full size).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vedere.data.build.garments import photo_view
from vedere.data.build.record import CAPTION_PROMPTS, Ask, Item, Kind, Split, captions_as_asks, stream

ALLOWED = ("CC-BY-2.0", "CC-BY-SA-2.0")
_HELD_OUT_EVERY = 6
_CROPS = 4


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield up to `count` photographs; a held-out one once, with each of its captions as a question."""
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    rows = sorted((row for row in rows if row["license"] in ALLOWED), key=lambda row: int(row["id"]))
    rows = [row for index, row in enumerate(rows) if (index % _HELD_OUT_EVERY == 0) == (split == "heldout")]
    views = [(row, crop) for crop in range(_CROPS if split == "train" else 1) for row in rows]
    for row, crop in views[:count]:
        rng = stream(seed, "captions", split, row["id"], crop)
        captions = [text.strip().rstrip(".").lower() for text in row["captions"]]
        rng.shuffle(captions)
        yield Item(
            image=photo_view(folder / row["file"], rng if split == "train" else None),
            labels=tuple(captions),
            captions=tuple(captions),
            alignment=captions_as_asks(captions, rng),
            asks=tuple(
                Ask(question=rng.choice(CAPTION_PROMPTS), answer=caption, question_type="caption")
                for caption in captions
            ),
            key=row["file"],
            licence=row["license"],
            attribution=f"COCO {row['id']}, {row['flickr_url']}; cropped and resized",
        )


KIND = Kind(
    name="captions",
    share=0.01,
    make=make,
    folder="coco-ccby",
    looks_for=("captions.jsonl", "images"),
    ledger=("coco-ccby", "coco-captions"),
)
