"""Training the namer on a tiny corpus: pictures with names are named, others are left alone, the file loads again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vedere.errors import RecordError
from vedere.models.namer import read_namer
from vedere.models.stem import EfficientNetLite0
from vedere.train.naming import NamingConfig, shown, train_namer

COLOURS = {"cherry": (230, 20, 30), "pear": (60, 220, 40), "": (90, 90, 90)}
SMALL = NamingConfig(side=64, passes=40, batch=16, lr=0.02, weight_decay=0.0, dropout=0.0, smoothing=0.0)


def corpus(root: Path, names: dict[str, tuple[int, int, int]] = COLOURS) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("instruction", 16), ("heldout", 8)):
        for kind in ("emoji", "scenes"):
            lines = []
            (root / "images" / kind).mkdir(parents=True, exist_ok=True)
            (root / split).mkdir(exist_ok=True)
            for name, colour in names.items():
                if bool(name) != (kind == "emoji"):
                    continue
                for number in range(count):
                    noise = rng.integers(-20, 20, (80, 80, 3))
                    path = f"images/{kind}/{split}-{name}-{number}.png"
                    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(root / path)
                    turns = [("What is this?", name, "name")]
                    if number > 0:  # the name is not always asked first
                        turns.insert(0, ("Is it a fruit?", "yes", "check"))
                    conversations = [
                        {"from": who, "value": text}
                        for turn in turns
                        for who, text in zip(("human", "gpt"), turn[:2], strict=True)
                    ]
                    asked = "+".join(turn[2] for turn in turns)
                    lines.append({"kind": kind, "image": path, "conversations": conversations, "question_type": asked})
            (root / split / f"{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def stem() -> EfficientNetLite0:
    torch.manual_seed(0)
    net = EfficientNetLite0()
    for layer in net.modules():  # random, but so that a picture still makes a difference at the end
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return net


def test_what_has_a_name_is_named_and_the_rest_is_not(tmp_path: Path, stem: EfficientNetLite0) -> None:
    out = tmp_path / "namer.safetensors"
    figures = train_namer(SMALL, corpus(tmp_path / "data"), out, stem, say=lambda _: None)
    assert figures["right"] == 1.0
    assert figures["others_named"] == 0.0
    assert (figures["names"], figures["named"], figures["others"]) == (2, 16, 8)
    assert json.loads(out.with_suffix(".json").read_text()) == figures
    names, weights = read_namer(out)
    assert names == ("cherry", "pear")
    assert weights["map.weight"].dtype == torch.bfloat16


def test_pictures_without_names_are_limited_and_unnamed(tmp_path: Path) -> None:
    found = list(shown(corpus(tmp_path), "instruction", most=5))
    assert [name for _, name in found].count("") == 5
    assert {name for _, name in found} == {"cherry", "pear", ""}
    assert all(path.is_file() for path, _ in found)


def test_a_corpus_without_names_is_refused(tmp_path: Path, stem: EfficientNetLite0) -> None:
    data = corpus(tmp_path / "data", {"": (90, 90, 90)})
    with pytest.raises(RecordError, match=r"no picture of .* has a name; build the corpus with one of the kinds emoji"):
        train_namer(SMALL, data, tmp_path / "namer.safetensors", stem)
