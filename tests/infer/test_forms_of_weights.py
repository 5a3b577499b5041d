"""Every kind of model answers about a picture with its weights in every form, nearly as it does with those stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

import tiny_internvl
import tiny_models
import tiny_xcomposer
import tiny_xcomposer2
from vedere.infer.allocator import keep_freed_memory
from vedere.infer.session import load
from vedere.models.quantized import QuantLinear, Weights
from vedere.models.row_forms import has_compiler
from vedere.models.weight_forms import can_pack

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "mono": tiny_models.tiny_directory,
    "internvl": lambda path: tiny_internvl.folder(path, "original"),
    "xcomposer": tiny_xcomposer.folder,
    "xcomposer2-4khd": lambda path: tiny_xcomposer2.folder(path, vocab_size=600),
}


@pytest.fixture
def memory_given_back() -> Iterator[None]:
    yield
    keep_freed_memory(False)


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("forms") / request.param)


def first_logprob(folder: Path, weights: Weights | None) -> tuple[float, set[str]]:
    """Of the first new token, and the forms of the maps."""
    session = load(folder, dtype=torch.bfloat16, device="cpu", weights=weights)
    picture = Image.effect_noise((90, 45), 60).convert("RGB")
    picture.putdata([(x * 7 % 256, x * 3 % 256, x % 256) for x in range(90 * 45)])
    reply = session.chat("what is it?", [picture], max_new_tokens=3)
    forms = {module.form for module in session.model.modules() if isinstance(module, QuantLinear)}
    return reply.logprobs[0], forms


@pytest.mark.usefixtures("memory_given_back")
@pytest.mark.parametrize("weights", get_args(Weights))
def test_every_form_answers_nearly_alike(folder: Path, weights: Weights) -> None:
    stored, none = first_logprob(folder, "stored")
    assert none == set()
    got, forms = first_logprob(folder, weights)
    if weights != "stored" and (weights != "bf16" or can_pack()):
        assert weights in forms or (weights == "int4" and "int8" in forms)
    assert math.isfinite(got)
    assert got == pytest.approx(stored, abs=1.0 if weights == "int4" else 0.25)


def test_a_large_model_takes_a_form_by_itself_and_its_memory_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vedere.models.quantized._LARGE", 0)
    kept: list[bool] = []
    monkeypatch.setattr("vedere.infer.allocator.keep_freed_memory", lambda: kept.append(True))
    if has_compiler():
        _, forms = first_logprob(folder, None)
        assert {"bf16-single"} <= forms <= {"bf16-single", "bf16"}
        assert kept
        kept.clear()
    for place in ("models.row_forms", "models.quantized"):
        monkeypatch.setattr(f"vedere.{place}.has_compiler", lambda: False)
    _, forms = first_logprob(folder, None)
    assert forms == ({"bf16"} if can_pack() else set())
    assert bool(kept) == can_pack()
