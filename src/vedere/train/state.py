"""Training checkpoints: complete or absent, and enough to continue bit by bit.

A checkpoint is a folder ``step-00001234`` with the learned tensors, the optimiser's tensors (safetensors) and ``state.json``
(stage, step, tokens, loader state). It is written under a temporary name, flushed and renamed, so a kill or a full disk
leaves the earlier ones intact. Random numbers need no state: every draw is derived from (seed, step) or (seed, sample).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from vedere.atomic import flush_directory, remove_leftovers, temporary_name
from vedere.errors import CheckpointError

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in ``directory``, ascending."""
    found = (path.name[5:] for path in directory.glob("step-*") if (path / STATE).is_file())
    return sorted(int(number) for number in found if len(number) == 8 and number.isascii() and number.isdigit())


def write_checkpoint(
    directory: Path,
    step: int,
    model: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Writes the checkpoint of ``step`` and removes all but the newest ``keep``.

    Args:
        directory: Of the run's checkpoints.
        step: Steps done in all stages.
        model: Learned tensors.
        optimizer: Optimiser tensors.
        state: JSON data.
        keep: Checkpoints to keep.

    Returns:
        Folder of the new checkpoint.

    Raises:
        CheckpointError: the disk is full or not writable; earlier checkpoints are intact.
    """
    name = f"step-{step:08d}"
    target = directory / name
    temporary = directory / temporary_name(name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory, name)
        temporary.mkdir()
        safetensors.torch.save_file({k: v.detach().contiguous() for k, v in model.items()}, temporary / MODEL)
        safetensors.torch.save_file({k: v.detach().contiguous() for k, v in optimizer.items()}, temporary / OPTIMIZER)
        (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        flush_directory(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
        flush_directory(directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = checkpoint_steps(directory) if directory.is_dir() else []
        raise CheckpointError(
            f"cannot write the checkpoint of step {step} to {directory}: {error}; free space or choose another run "
            f"directory, then --resume (checkpoints left: {kept or 'none'})"
        ) from error
    for old in checkpoint_steps(directory)[:-keep]:
        shutil.rmtree(directory / f"step-{old:08d}", ignore_errors=True)
    return target


def read_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """The newest readable checkpoint as (model, optimiser, state), or None if there is none.

    Raises:
        CheckpointError: checkpoints exist, but none can be read.
    """
    problems = []
    for step in reversed(checkpoint_steps(directory)):
        folder = directory / f"step-{step:08d}"
        try:
            model = safetensors.torch.load_file(folder / MODEL)
            optimizer = safetensors.torch.load_file(folder / OPTIMIZER)
            return model, optimizer, _read_state(folder / STATE)
        except (OSError, SafetensorError, ValueError, RecursionError) as error:
            problems.append(f"{folder.name}: {error}")
    if problems:
        raise CheckpointError(
            f"no checkpoint in {directory} can be read ({'; '.join(problems)}); start without --resume"
        )
    return None


def _read_state(path: Path) -> dict[str, Any]:
    state = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError(f"{path.name} is no state of a training")
    for key in ("stage", "step_in_stage", "step", "tokens"):
        if type(state.get(key, 0)) is not int or state.get(key, 0) < 0:
            raise ValueError(f"'{key}' in {path.name} is {str(state[key])[:40]}; expected a count")
    return state
