"""Recordings of vedere's own (`vedere.verify.record`): any model against what a model has computed somewhere else.

Numbers are compared by the norm of the error over the norm of what is recorded, which suits models of any size and dtype;
generated ids exactly, up to the first that was not a clear winner within the tolerance.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vedere.config import nearest
from vedere.errors import CheckpointError, ConfigError
from vedere.models.decoder import Decoder
from vedere.models.vision_language import VisionLanguageModel
from vedere.verify.check import Check, Recording
from vedere.verify.outputs import Outputs

DESCRIPTION = "recording.json"
INPUTS = ("input_ids", "attention_mask", "labels", "pixel_values", "span_types")
MARGINS = "margins"
# Norm of the error by norm of the recorded. Kernels and machines differ by about a tenth of these.
TOLERANCES = {"float64": 5e-5, "float32": 5e-5, "float16": 1e-2, "bfloat16": 3e-2}
_CLEAR = 3  # tolerances between the first and the second logit, from which on the first is sure


def checks(
    directory: Path, model: Path | str | None = None, dtype: torch.dtype | None = None, device: str | None = None
) -> Iterator[Check]:
    """Every recorded tensor.

    Args:
        directory: Of the recording.
        model: Folder or name of a model; None takes the recorded one.
        dtype: Of its weights; None takes the recorded one.
        device: None is the CPU.

    Raises:
        CheckpointError: the recording or the model cannot be read, or the model is not there.
    """
    recording, said = Recording(directory), read_description(directory)
    dtype = dtype or getattr(torch, said["dtype"])
    where = _model_of(directory, said) if model is None else model
    tested = load_any(where, dtype, device)
    inputs = {name: recording.take(name) for name in INPUTS if name in recording}
    outputs = Outputs(tested, inputs, said["image_context"], said["deltas"])
    tolerance = max(TOLERANCES[said["dtype"]], TOLERANCES[str(dtype).removeprefix("torch.")])
    known = set()
    for name, measure, compute in outputs.tensors():
        known.add(name)
        if name not in recording:
            yield Check(
                name=name, measure="mismatches", error=float("inf"), note="the model has it, the recording does not"
            )
            continue
        if not name.startswith("generated_ids"):
            yield recording.compare(name, lambda compute=compute: _plain(compute()), measure, tolerance)  # type: ignore[misc]
            continue
        margins = recording.take(f"{MARGINS}{name.removeprefix('generated_ids')}")
        sure = _sure(margins, _CLEAR * tolerance)
        check = recording.compare(
            name,
            lambda compute=compute, sure=sure: compute()[:sure],  # type: ignore[misc]
            measure,
            select=lambda recorded, sure=sure: recorded[:sure],  # type: ignore[misc]
        )
        yield (
            check
            if sure == len(margins)
            else _with_note(check, f"the first {sure} of {len(margins)} are clear winners")
        )
    yield from recording.rest()


def read_description(directory: Path) -> dict[str, Any]:
    """``recording.json``.

    Raises:
        CheckpointError: it is not what `vedere.verify.record` writes.
    """
    path = directory / DESCRIPTION
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        deltas, context = said["deltas"], said["image_context"]
        good = (
            said["dtype"] in TOLERANCES
            and isinstance(said["model"], str)
            and isinstance(context, int)
            and isinstance(deltas, list)
            and all(isinstance(delta, int) and delta > 0 for delta in deltas)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}); record it again") from None
    if not good:
        raise CheckpointError(f"{path} has a dtype, model, image_context or deltas of another kind; record it again")
    return dict(said)


def load_any(name: Path | str, dtype: torch.dtype | None, device: str | None) -> VisionLanguageModel | Decoder:
    """A model by folder or name, with or without a tokenizer beside it."""
    from vedere.infer.loading import find, open_model
    from vedere.models.checkpoints import load_model
    from vedere.models.delta import DELTA
    from vedere.models.devices import choose_device
    from vedere.models.mono_internvl import MonoInternVL
    from vedere.text.tokenizer import Tokenizer

    where = choose_device(device or "cpu")
    _, folder = find(name)
    if (folder / DELTA).is_file():
        return open_model(name, dtype=dtype, device=where).model
    model = load_model(folder, dtype, where)
    if isinstance(model, MonoInternVL) and has_tokenizer(folder):
        model.cut_with(Tokenizer.load(folder).pieces)
    assert isinstance(model, (VisionLanguageModel, Decoder))
    return model


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a file that a tokenizer can be read from."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def parse_dtype(name: str | None) -> torch.dtype | None:
    """A dtype by its short or long name.

    Raises:
        ConfigError: another name.
    """
    short = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
    if name is None:
        return None
    long = short.get(name, name)
    if long not in TOLERANCES:
        known = (*short, *TOLERANCES)
        raise ConfigError(f"unknown dtype '{name}'{nearest(name, known)} (expected {', '.join(short)})")
    found: torch.dtype = getattr(torch, long)
    return found


def _model_of(directory: Path, said: dict[str, Any]) -> Path | str:
    if said["model"] == ".":
        return directory
    name = said["model"]
    if Path(name).is_absolute() and not Path(name).exists():
        raise CheckpointError(
            f"{directory} was recorded from {name}, which is not here; give the model: --model FOLDER (or record with "
            "--with-weights)"
        )
    return str(name)


def _sure(margins: Tensor, limit: float) -> int:
    unclear = (margins < limit).nonzero()
    return int(unclear[0]) if len(unclear) else len(margins)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.cpu()


def _with_note(check: Check, note: str) -> Check:
    return check if check.note else dataclasses.replace(check, note=note)
