"""Mono-InternVL folders (arXiv 2410.08202): visual tokens without a tower, routed experts, text-only run, greedy ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.mono_internvl import MonoInternVL
from vedere.verify.assembly import IMAGE_CONTEXT, Assembly, pack_rows
from vedere.verify.check import FEATURES, Check, Recording


def checks(directory: Path, folder: Path | None = None) -> Iterator[Check]:
    """Every recorded tensor of a Mono-InternVL folder, with its own checkpoint or the one in ``folder``.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read.
    """
    recording = Recording(directory)
    run = Assembly(recording, folder)
    model = run.model
    if not isinstance(model, MonoInternVL):
        raise CheckpointError(
            f"{folder or directory}: config.json and weights are of a {type(model).__name__}, not of Mono-InternVL"
        )
    yield from run.features_check("vision_last_hidden_state", lambda: model.patch_states(run.pixels).flatten(1, 2))
    yield from run.features_check("projected_features", lambda: run.features)
    if "visual_token_mask" in recording:
        yield recording.compare(
            "visual_token_mask", lambda: (recording.take("input_ids") == IMAGE_CONTEXT)[..., None], "mismatches"
        )
    yield from run.batch_checks()
    if "hidden_states_row0" in recording:
        yield recording.compare(
            "hidden_states_row0",
            lambda: torch.stack(run.first_row[1]),
            "absolute",
            FEATURES,
            lambda recorded: _real_columns(recorded, run),
        )
    yield from run.features_check("text_only_logits", lambda: _text_only(run))
    yield from run.generation_check()
    yield from recording.rest()


def _real_columns(recorded: Tensor, run: Assembly) -> Tensor:
    """Row 0 without its padding, if it was recorded with it."""
    mask = run.batch.mask[0]
    return recorded[:, mask] if recorded.shape[1] == len(mask) else recorded


def _text_only(run: Assembly) -> Tensor:
    """Logits ``[B, L, V]`` of the language model alone."""
    ids_BL = run.recording.take("text_only_input_ids")
    rows = pack_rows(ids_BL)
    hidden = run.decode(run.model.decoder.embed(rows.ids), rows, None)
    logits: Tensor = run.model.decoder.logits(hidden)
    return logits.view(*ids_BL.shape, -1)
