"""InternVL folders in the original naming (arXiv 2404.16821 and successors): tower, projector, language model.

Handles the language models that `vedere.models.checkpoints` can load. The recorded runs of dynamic NTK include two on a
fresh instance: with a cache, where the base changes at every step while old keys stay, and without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.internvl import InternVL
from vedere.verify.assembly import Assembly
from vedere.verify.check import FEATURES, Check, Recording
from vedere.verify.greedy import Runner

_STATE = re.compile(r"vision_hidden_state_(\d+)")
_RESIZED = re.compile(r"(interp(?:_\w+)?)_vision_last_hidden_state")


def checks(directory: Path) -> Iterator[Check]:
    """Every recorded tensor of an InternVL folder.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read, or an unsupported language model.
    """
    recording = Recording(directory)
    run = Assembly(recording)
    model = run.model
    if not isinstance(model, InternVL):
        raise CheckpointError(f"{directory}: config.json and weights are of a {type(model).__name__}, not of InternVL")
    for name in sorted(recording.tensors):
        if found := _STATE.fullmatch(name):
            yield from run.features_check(name, lambda block=int(found[1]): _states(model, run.pixels)[block])  # type: ignore[misc]
        elif found := _RESIZED.fullmatch(name):
            source = f"{found[1]}_pixel_values"
            yield from run.features_check(name, lambda source=source: model.vision.encode(recording.take(source)))  # type: ignore[misc]
    yield from run.features_check("vision_last_hidden_state", lambda: model.vision.encode(run.pixels))
    yield from run.features_check("projected_features", lambda: run.features)
    yield from run.batch_checks()
    yield from run.generation_check()
    yield from _fresh(run)
    yield from recording.rest()


def _states(model: InternVL, pixels: Tensor) -> list[Tensor]:
    """The embedding and the output of every block."""
    record: list[Tensor] = []
    model.vision.encode(pixels, record)
    return record


def _fresh(run: Assembly) -> Iterator[Check]:
    """Greedy runs on an instance that has seen nothing before."""
    recording = run.recording
    if "generated_ids_fresh_incremental" in recording:
        new = recording.tensors["generated_ids_fresh_incremental"].shape[-1]
        yield recording.compare(
            "generated_ids_fresh_incremental", lambda: run.generate(Runner(run.model), new), "mismatches"
        )
    if "generated_ids_fresh_reforward" in recording:
        steps = recording.tensors["generated_ids_fresh_reforward"].shape[-1]
        yield recording.compare(
            "generated_ids_fresh_reforward", lambda: run.generate(Runner(run.model), steps, cached=False), "mismatches"
        )
    if "logits_fresh_reforward" in recording:
        yield recording.compare("logits_fresh_reforward", lambda: _step_logits(run), "absolute", FEATURES)


def _step_logits(run: Assembly) -> Tensor:
    logits: list[Tensor] = []
    run.generate(Runner(run.model), run.recording.tensors["logits_fresh_reforward"].shape[1], False, logits)
    return torch.stack(logits)[None]
