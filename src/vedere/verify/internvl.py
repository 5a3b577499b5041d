"""InternVL folders in the original naming (arXiv 2404.16821 and successors): tower, projector, language model.

Handles the language models that `vedere.models.checkpoints` can load. The recorded runs of dynamic NTK include two on a
fresh instance: with a cache, where the base changes at every step while old keys stay, and without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.internvl import InternVL
from vedere.verify.assembly import Assembly, visual_types
from vedere.verify.check import Check, Recording

_STATE = re.compile(r"vision_hidden_state_(\d+)")
_RESIZED = re.compile(r"(interp(?:_\w+)?)_vision_last_hidden_state")


def checks(directory: Path, folder: Path | None = None) -> Iterator[Check]:
    """Every recorded tensor of an InternVL folder, with its own checkpoint or the one in ``folder``.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read, or an unsupported language model.
    """
    recording = Recording(directory)
    run = Assembly(recording, folder)
    model = run.model
    if not isinstance(model, InternVL):
        raise CheckpointError(
            f"{folder or directory}: config.json and weights are of a {type(model).__name__}, not of InternVL"
        )
    for name in sorted(recording.tensors):
        if found := _STATE.fullmatch(name):
            yield from run.features_check(name, partial(_state, run, model, int(found[1])))
        elif found := _RESIZED.fullmatch(name):
            yield from run.features_check(name, partial(_resized, recording, model, f"{found[1]}_pixel_values"))
    yield from run.features_check("vision_last_hidden_state", lambda: _state(run, model, -1))
    yield from run.features_check("projected_features", lambda: run.features)
    yield from run.batch_checks()
    yield from run.generation_check()
    yield from _fresh(run)
    yield from recording.rest()


def _state(run: Assembly, model: InternVL, number: int) -> Tensor:
    """The embedding (0) or the output of block ``number``; -1 is the last block, whichever state the features are."""
    return _states(model, run.pixels)[number]


def _states(model: InternVL, pixels: Tensor) -> list[Tensor]:
    record: list[Tensor] = []
    model.vision.encode(pixels, record)
    return record


def _resized(recording: Recording, model: InternVL, pixels: str) -> Tensor:
    """The tower on tiles of another size, which interpolates the position table."""
    return _states(model, recording.take(pixels))[-1]


def _fresh(run: Assembly) -> Iterator[Check]:
    """Greedy runs on an instance that has seen nothing before."""
    recording = run.recording
    name = "generated_ids_fresh_incremental"
    if name in recording:
        yield recording.compare(name, lambda: _incremental(run, recording.tensors[name].shape[-1]), "mismatches")
    if "generated_ids_fresh_reforward" in recording:
        new = recording.tensors["generated_ids_fresh_reforward"].shape[-1]
        yield recording.compare("generated_ids_fresh_reforward", lambda: _reforward(run, new)[0], "mismatches")
    if "logits_fresh_reforward" in recording:
        steps = recording.tensors["logits_fresh_reforward"].shape[1]
        yield from run.features_check("logits_fresh_reforward", lambda: _reforward(run, steps)[1])


def _incremental(run: Assembly, new: int) -> Tensor:
    """Ids ``[1, new]`` of a request that the engine answers by itself."""
    ids, pixels = run.prompt()
    return run.generate(ids, torch.arange(len(ids)), pixels, new)[None]


def _reforward(run: Assembly, new: int) -> tuple[Tensor, Tensor]:
    """Ids ``[1, new]`` and the logits ``[1, new, V]`` that they were chosen from, the whole sequence computed at every step."""
    ids, pixels = run.prompt()
    features = None if pixels is None else run.model.encode(pixels)
    logits: list[Tensor] = []
    for _ in range(new):
        types = visual_types(ids, run.context)
        hidden = run.model.decoder(
            run.model.place(ids, types, features),
            torch.arange(len(ids)),
            [0, len(ids)],
            types,
            rows_M=torch.tensor([len(ids) - 1]),
        )
        logits.append(run.model.decoder.logits(hidden[-1]))
        ids = torch.cat([ids, logits[-1].argmax()[None]])
    return ids[-new:][None], torch.stack(logits)[None]
