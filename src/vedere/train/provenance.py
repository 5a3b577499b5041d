"""Where a run came from and what it plans: versions, commit, machine, tokens and memory; no names of hosts or people."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vedere import __version__
from vedere.errors import CheckpointError
from vedere.models.attention import EXPLICIT_LIMIT
from vedere.models.checkpoints import model_config
from vedere.models.footprint import training_footprint
from vedere.models.vision_language import VisionLanguageModel
from vedere.train.run import RunConfig


def git_commit() -> str:
    """The commit of the checkout that runs, ``-dirty`` if it was changed; empty for an installed package.

    An installed package may lie inside somebody's own repository, whose commit says nothing about vedere.
    """
    *_, package, source, checkout = Path(__file__).resolve().parents[:4]
    if (package.name, source.name) != ("vedere", "src") or not (checkout / ".git").exists():
        return ""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() if commit.returncode == 0 else ""


def plan(model: VisionLanguageModel, config: RunConfig, dtype: torch.dtype) -> dict[str, dict[str, int]]:
    """Tokens and memory of each stage before it begins: parameters that learn, and an estimate in bytes.

    Activations are those of a full pack of documents as long as explicit attention takes them, its most expensive case;
    the rest is exact (`vedere.models.footprint`).
    """
    stages = {}
    for stage in config.stages:
        tiles = min(stage.pack_tiles, stage.pack_tokens // model.patches.tokens_per_tile)
        needed = training_footprint(
            model_config(model),
            dtype=dtype,
            trains=stage.trains,
            tokens=stage.pack_tokens,
            tiles=tiles,
            document=min(stage.pack_tokens, EXPLICIT_LIMIT),
            checkpoint_layers=config.checkpoint_layers,
        )
        stages[stage.name] = {
            "steps": stage.steps,
            "tokens": stage.steps * stage.tokens_per_step,
            "learning": needed.learning,
            "weights_bytes": needed.weights,
            "optimizer_bytes": needed.optimizer,
            "activations_bytes": needed.activations,
            "total_bytes": needed.total,
        }
    return stages


def earlier_starts(directory: Path) -> list[dict[str, Any]]:
    """What ``run.json`` keeps of the starts so far; empty without the file.

    Raises:
        CheckpointError: the file is not one that a run writes.
    """
    path = directory / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        starts: list[dict[str, Any]] = facts.get("starts", [facts])  # of a run that began before starts were kept
        if all(isinstance(start["plan"], dict) for start in starts):
            return starts
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise CheckpointError(f"{path} does not hold the starts of a run; move it away to go on without them")


def provenance(
    model: VisionLanguageModel, config: RunConfig, device: torch.device, dtype: torch.dtype, language_model: Path | None
) -> dict[str, Any]:
    """JSON facts of one start of a run."""
    from vedere.models.sources import identity, origin

    base: dict[str, Any] = {}
    if language_model is not None:
        base = origin(language_model) | {"tensors_sha256": identity(language_model)}
    versions = {}
    for package in ("torch", "numpy", "pillow", "tokenizers", "safetensors"):
        versions[package] = importlib.metadata.version(package)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "vedere": __version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "versions": versions,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
        "plan": plan(model, config, dtype),
        "language_model": base,
    }
