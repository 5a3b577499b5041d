"""A batch holds what the model was made for: the pixels of training are those of answering."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_internvl
import tiny_xcomposer2
from vedere.data.packing import Document, collate
from vedere.data.prepare import SamplePreparer
from vedere.data.sample import MediaRef, Sample
from vedere.infer.prompts import Question
from vedere.infer.session import Session, load
from vedere.plan import SpanKind, SquarePolicy
from vedere.text.chat import Turn
from vedere.text.render import Span
from vedere.train.batch import make_batch
from vedere.train.stages import StageConfig
from vedere.vision import normalise, tower_inputs

STAGE = StageConfig(name="one", data="", steps=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 110, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "model"
    folder.mkdir()
    return load(tiny_xcomposer2.folder(folder), dtype=torch.float32, device="cpu")


def document_of(session: Session, photo: Path, **changes: object) -> Document:
    prompts = session.prompts
    fields = {"policy": prompts.policy, "statistics": prompts.statistics, **changes}
    prepare = SamplePreparer(tokenizer=prompts.tokenizer, template=prompts.template, augment="never", **fields)  # type: ignore[arg-type]
    turns = (Turn("user", "<image>\nabc"), Turn("assistant", "ab"))
    media = (MediaRef(kind="image", path=str(photo)),)
    return prepare(Sample(name="one", conversation=turns, media=media), random.Random(0))


def test_a_4khd_batch_has_the_pixels_that_the_model_answers_from(session: Session, photo: Path) -> None:
    batch = make_batch(collate([document_of(session, photo)]), STAGE, session.model, random.Random(0))  # type: ignore[arg-type]
    request = session.prompts.make(Question(text="abc", images=[str(photo)])).request
    tiles, grids = torch.as_tensor(request.pixels), session.model.grids(batch.span_types)  # type: ignore[operator]
    assert len(grids) == 1
    assert torch.equal(batch.pixels, tower_inputs(tiles, grids, request.statistics))
    assert torch.equal(batch.pixels, tower_inputs(tiles, grids, "clip"))  # those of the release
    hidden = session.model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels)
    assert torch.isfinite(hidden).all()


def test_an_internvl_batch_has_those_of_imagenet() -> None:
    model = tiny_internvl.model(tiny_internvl.config())
    side, visual = model.patches.tile, model.tokens_per_tile
    tiles = np.random.default_rng(0).integers(0, 256, (1, 3, side, side), np.uint8)
    ids, types = np.arange(visual + 2), np.array([1] * visual + [0, 0], np.int8)
    span = Span(media=0, frame=0, start=0, length=visual, kind=SpanKind.VISUAL)
    document = Document(name="d", ids=ids, labels=ids, span_types=types, spans=(span,), tiles=tiles)
    batch = make_batch(collate([document]), STAGE, model, random.Random(0))
    assert torch.equal(batch.pixels, normalise(torch.from_numpy(tiles), "imagenet"))


@pytest.mark.parametrize(("statistics", "colour"), [("imagenet", [123, 116, 103]), ("clip", [122, 116, 104])])
def test_a_square_is_padded_with_their_mean(session: Session, photo: Path, statistics: str, colour: list[int]) -> None:
    policy = SquarePolicy(tile=56, downsample=1, pad=True)
    tiles = document_of(session, photo, policy=policy, statistics=statistics).tiles
    assert tiles[0, :, 0, 0].tolist() == colour
