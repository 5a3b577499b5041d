"""The multilingual encoder against its definition, term by term, on small random weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from vedere.errors import CheckpointError
from vedere.models.ngram_encoder import MultilingualEncoder, NgramEncoder

C, B, ROWS, BLOCKS = 6, 4, 3, 17


def stored(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return draw.normal(size=shape).astype(np.float32)

    found: dict[str, np.ndarray[Any, Any]] = {
        f"q{number}": draw.integers(0, 64, (ROWS, C), dtype=np.uint8) for number in range(1, BLOCKS + 1)
    }
    found |= {"scale": draw.uniform(0.01, 0.1, BLOCKS).astype(np.float32), "lo": normal(BLOCKS), "eps": np.array(1e-6)}
    for order in (2, 3, 5):
        found |= {f"proj{order}": normal(C, B), f"proj_b{order}": normal(B)}
        found |= {f"ln_g{order}": normal(B), f"ln_b{order}": normal(B)}
        for layer in (1, 2):
            found |= {f"w{layer}_{order}": normal(order * B, B) * 0.5, f"b{layer}_{order}": normal(B)}
    found |= {"ln_g": normal(C + 3 * B), "ln_b": normal(C + 3 * B), "cnn_W": normal(C + 3 * B, C), "cnn_b": normal(C)}
    shapes = {"d0": (C, 5), "d1": (5, 5), "p1": (C, 5), "d2": (5, 7), "p3": (5, C), "d3": (7, C)}
    return found | {name: normal(*shape) for name, shape in shapes.items()}


def norm(x: np.ndarray[Any, Any], weight: Any, bias: Any) -> np.ndarray[Any, Any]:
    centred = x - x.mean()
    result: np.ndarray[Any, Any] = centred / np.sqrt((centred**2).mean() + 1e-6) * weight + bias
    return result


def by_definition(w: dict[str, np.ndarray[Any, Any]], ids: list[int]) -> np.ndarray[Any, Any]:
    """One text, piece by piece."""
    embedded = [w[f"q{i % BLOCKS + 1}"][i // BLOCKS] * w["scale"][i % BLOCKS] + w["lo"][i % BLOCKS] for i in ids]
    branches = []
    for order in (2, 3, 5):
        x = [norm(e @ w[f"proj{order}"] + w[f"proj_b{order}"], w[f"ln_g{order}"], w[f"ln_b{order}"]) for e in embedded]
        left = (order - 1) // 2
        for layer in (1, 2):
            kernel = w[f"w{layer}_{order}"].reshape(order, B, B)
            seen = []
            for place in range(len(ids)):
                total = w[f"b{layer}_{order}"].copy()
                for slot in range(order):
                    at = place - left + slot
                    if 0 <= at < len(ids):
                        total = total + x[at] @ kernel[slot]
                seen.append(x[place] + np.maximum(total, 0))
            x = seen
        branches.append(x)
    total = np.zeros(C)
    for place in range(len(ids)):
        whole = np.concatenate([embedded[place], *(branch[place] for branch in branches)])
        total += norm(whole, w["ln_g"], w["ln_b"]) @ w["cnn_W"] + w["cnn_b"]
    mean = total / math.sqrt(len(ids))
    inner = np.maximum(mean @ w["p1"] + np.maximum(mean @ w["d0"], 0) @ w["d1"], 0)
    out = np.tanh(inner @ w["p3"] + np.maximum(inner @ w["d2"], 0) @ w["d3"])
    result: np.ndarray[Any, Any] = out / np.linalg.norm(out)
    return result


def test_texts_of_all_lengths_in_one_batch_are_as_defined() -> None:
    weights = stored()
    draw = np.random.default_rng(1)
    rows = [draw.integers(0, ROWS * BLOCKS, length).tolist() for length in (2, 1, 9, 5, 3)]
    ids = torch.full((len(rows), 9), 7)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row)
    found = NgramEncoder(weights)(ids, torch.tensor([len(row) for row in rows]))
    expected = np.stack([by_definition(weights, row) for row in rows])
    assert np.abs(found.numpy() - expected).max() < 2e-5


def test_what_stands_after_a_text_changes_nothing() -> None:
    model = NgramEncoder(stored())
    short = model(torch.tensor([[3, 4, 5]]), torch.tensor([3]))
    for filler in (0, 50):
        ids = torch.tensor([[3, 4, 5, filler, filler], [1, 2, 3, 4, 5]])
        assert torch.allclose(model(ids, torch.tensor([3, 5]))[0], short[0], atol=1e-6)


def test_damaged_weights_are_said(tmp_path: Any) -> None:
    weights = stored()
    del weights["q5"]
    with pytest.raises(
        CheckpointError, match=r"weights of the multilingual encoder are damaged .*q5.*; fetch them again"
    ):
        NgramEncoder(weights)
    with pytest.raises(CheckpointError, match=r"cannot be read .*; remove that folder: it is fetched again"):
        MultilingualEncoder(tmp_path)
