"""Which kind of recorded folder a directory is, by its files and keys; adding a kind is one file and one line here.

The rules are tried in order and the first that fits decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vedere.errors import CheckpointError
from vedere.models.shards import read_file, read_tensors
from vedere.verify import (
    chat_templates,
    internvl,
    loss_reweighting,
    mono,
    preference_loss,
    preprocessing,
    recorded,
    v2pe,
    v2pe_positions,
    xcomposer,
    xcomposer2,
)
from vedere.verify.check import IO, Check

Checks = Callable[..., Iterator[Check]]


class Clues:
    """What a directory holds, read only as far as a rule asks.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.directory / name).is_file()

    @cached_property
    def recorded(self) -> frozenset[str]:
        """Names in ``io.safetensors``; empty without that file."""
        return frozenset(read_file(self.directory / IO)[0]) if self.has(IO) else frozenset()

    @cached_property
    def weights(self) -> frozenset[str]:
        """Names of the weights; empty without weights."""
        try:
            return frozenset(read_tensors(self.directory))
        except CheckpointError:
            return frozenset()  # the kind's own loader says what is wrong

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``; empty if it is missing or no object."""
        try:
            data = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    @property
    def family(self) -> str:
        """The family of a folder in vedere's own layout; empty for others."""
        return str(self.config.get("family", "")) if self.config.get("format") == "vedere" else ""

    def fractional(self) -> bool:
        """Whether config.json asks for V2PE."""
        said = self.config.get("extras") if self.family else self.config
        said = said if isinstance(said, dict) else {}
        llm = said.get("llm_config")
        scaling = llm.get("rope_scaling") if isinstance(llm, dict) else None
        version = str(said.get("rope_pos_id_version", "default"))
        return version.startswith("v2pe") or (isinstance(scaling, dict) and scaling.get("type") == "v2pe")


@dataclass(frozen=True)
class Kind:
    """A kind of recorded folder.

    Attributes:
        name: As messages call it.
        fits: Its rule.
        checks: Verifies a folder.
        subject: What it can be pointed at instead of what lies in the folder: nothing, the ``folder`` of another checkpoint, or
            any ``model`` in any dtype on any device.
    """

    name: str
    fits: Callable[[Clues], bool]
    checks: Checks
    subject: Literal["nothing", "folder", "model"] = "nothing"


def _holds(names: frozenset[str], part: str) -> bool:
    return any(part in name for name in names)


KINDS = (
    Kind("vedere's own", lambda c: c.has(recorded.DESCRIPTION), recorded.checks, "model"),
    Kind("chat templates", lambda c: c.has(chat_templates.DIALOGUES), chat_templates.checks),
    Kind("preprocessing", lambda c: c.has(preprocessing.IMAGES), preprocessing.checks),
    Kind("V2PE position ids", lambda c: c.has(v2pe_positions.INDEX), v2pe_positions.checks),
    Kind("preference loss", lambda c: "step0.policy_logits" in c.recorded, preference_loss.checks),
    Kind("loss re-weighting", lambda c: "l0.labels" in c.recorded, loss_reweighting.checks),
    Kind("V2PE", lambda c: c.fractional() and _holds(c.recorded, "position_ids.d"), v2pe.checks, "folder"),
    Kind(
        "Mono-InternVL",
        lambda c: c.family == "mono-internvl" or _holds(c.weights, "feed_forward_ve"),
        mono.checks,
        "folder",
    ),
    Kind("native InternVL", lambda c: c.config.get("model_type") == "internvl", internvl.checks, "folder"),
    Kind("XComposer2", lambda c: c.family == "xcomposer2" or _holds(c.weights, "Plora_A"), xcomposer2.checks, "folder"),
    Kind(
        "XComposer",
        lambda c: c.family == "xcomposer" or _holds(c.weights, "Qformer") or "query_tokens" in c.weights,
        xcomposer.checks,
        "folder",
    ),
    Kind(
        "InternVL",
        lambda c: (c.family == "internvl" or c.config.get("model_type") == "internvl_chat") and bool(c.recorded),
        internvl.checks,
        "folder",
    ),
)


def recognise(directory: Path | str) -> Kind:
    """The kind of a recorded folder.

    Raises:
        CheckpointError: no such folder, or none of the kinds.
    """
    directory = Path(directory)
    known = ", ".join(kind.name for kind in KINDS)
    if not directory.is_dir():
        raise CheckpointError(f"no folder {directory}; give one with recorded outputs (kinds verified here: {known})")
    clues = Clues(directory)
    for kind in KINDS:
        if kind.fits(clues):
            return kind
    found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:10]) or "nothing"
    raise CheckpointError(
        f"{directory} is no recording that is known here (found: {found}); kinds verified here: {known}"
    )
