"""Where a run came from: versions, commit, machine and model size, without names of hosts or people."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vedere import __version__
from vedere.train.run import RunConfig


def git_commit() -> str:
    """The commit of the checkout that runs, ``-dirty`` if it was changed; empty outside of a checkout."""
    root = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() if commit.returncode == 0 else ""


def provenance(
    model: nn.Module, config: RunConfig, device: torch.device, dtype: torch.dtype, language_model: Path
) -> dict[str, Any]:
    """JSON facts that a run directory keeps."""
    from vedere.models.sources import identity, origin

    versions = {}
    for package in ("torch", "numpy", "pillow", "tokenizers", "safetensors"):
        versions[package] = importlib.metadata.version(package)
    return {
        "vedere": __version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "versions": versions,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
        "stages": {stage.name: stage.steps for stage in config.stages},
        "tokens_planned": sum(stage.steps * stage.tokens_per_step for stage in config.stages),
        "language_model": origin(language_model) | {"tensors_sha256": identity(language_model)},
    }
