"""Which device a model goes to: a name as people write it, checked before anything is loaded."""

from __future__ import annotations

import torch

from vedere.config import nearest
from vedere.errors import ConfigError

NAMES = ("auto", "cpu", "cuda")


def choose_device(name: torch.device | str | None = None) -> torch.device:
    """The device called ``name``; ``auto`` or None takes a GPU if there is one.

    Raises:
        ConfigError: no such kind of device, or one that this computer or this build of torch does not have.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise ConfigError(f"unknown device '{name}'{nearest(str(name), NAMES)} (expected {', '.join(NAMES)})") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device '{name}' was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; "
            "choose cpu, or install a build of torch for your GPU"
        )
    try:
        if device.type not in ("cpu", "cuda", "meta"):
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"device '{name}' was asked for, but torch {torch.__version__} has none here ({reason}); choose cpu"
        ) from None
    return device
