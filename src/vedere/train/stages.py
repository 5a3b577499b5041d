"""What a stage trains, declared as patterns over parameter names.

EViP (Mono-InternVL, arXiv 2410.08202, sec. 3.3) is delta tuning: the language model is frozen while visual parameters
learn. S1.1 and S1.2 train patch embedding, projector and visual feed-forward experts; S1.3 opens attention as well; S2 opens
everything. A stage here names what learns with shell patterns (``decoder.layers.*.ffn.visual.*``); a pattern that matches
nothing is an error, so a renamed parameter cannot silently freeze a stage.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from vedere.config import check_ranges, nearest
from vedere.errors import ConfigError
from vedere.train.losses import Averaging

VISUAL_PARTS = ("vision.*", "projector.*", "decoder.layers.*.ffn.visual.*")
TEXT_ATTENTION = ("decoder.layers.*.attention.text.*",)
VISUAL_ATTENTION = ("decoder.layers.*.attention.visual.*",)
EVERYTHING = ("*",)
HD_VIEWS = ("row_end", "separator")
PARTIAL_LORA = ("decoder.layers.*.partial.*",)
LORA = ("decoder.layers.*.low.*",)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule.

    Attributes:
        lr: Peak learning rate.
        lr_scale: (pattern, factor) pairs; the first pattern that matches a parameter scales its rate.
        warmup: Warm-up steps; below 1, a share of all steps.
        schedule: After warm-up: ``constant`` or ``cosine`` down to ``final``.
        final: Last learning rate as a share of ``lr`` under ``cosine``.
        weight_decay: On matrices, embedding and head included; norms, biases and tables of positions are exempt.
        beta1: First moment.
        beta2: Second moment.
        eps: Adam's epsilon.
        clip: Largest global gradient norm; 0 switches clipping off.
    """

    lr: float = 1e-4
    lr_scale: tuple[tuple[str, float], ...] = ()
    warmup: float = 0.03
    schedule: Literal["constant", "cosine"] = "cosine"
    final: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a number out of range.
        """
        check_ranges(self, lr=0, warmup=0, final=0, weight_decay=0, beta1=0, beta2=0, eps=0, clip=0)
        if max(self.beta1, self.beta2) >= 1:
            raise ConfigError(f"beta1 {self.beta1}, beta2 {self.beta2}; expected both below 1")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a recipe.

    Attributes:
        name: Shown in logs and run directories.
        data: Meta JSON (or a folder that holds ``meta.json``), or a mix file of XComposer (``data.txt``), relative to the run's
            data folder.
        given_num: Numbers of a mix file are thousands of samples an epoch, as with the released script's switch of that name;
            else shares of the files.
        trains: Patterns of the parameters that learn; everything else is frozen.
        steps: Optimiser steps.
        tokens_per_step: Packs are accumulated until a step has seen at least this many tokens
        samples_per_step: and at least this many samples, for batches that a paper counts in them.
        pack_tokens: Most tokens of a pack.
        pack_tiles: Most tiles of a pack.
        max_tiles: Dynamic tiling limit of a picture, thumbnail not counted; the N of HD-N under global and local views.
        limits: (pattern over names of data sets, limit) where it is another one: documents high, the rest low.
        random_resolution: Draw the size of pictures whose data set ``limits`` does not name between their own and the limit
            (4KHD; `vedere.data.prepare`).
        frames: Least and most frames of a video; each time it comes up a number between is drawn.
        averaging: Loss averaging.
        position_mode: ``default``, ``v2pe_fix`` or ``v2pe_rnd``.
        v2pe_delta: The fixed delta of ``v2pe_fix``.
        optim: Optimiser and schedule.
    """

    name: str
    data: str
    given_num: bool = False
    trains: tuple[str, ...] = VISUAL_PARTS
    steps: int = 1000
    tokens_per_step: int = 4096
    samples_per_step: int = 0
    pack_tokens: int = 4096
    pack_tiles: int = 64
    max_tiles: int = 1
    limits: tuple[tuple[str, int], ...] = ()
    random_resolution: bool = False
    frames: tuple[int, int] = (8, 32)
    averaging: Averaging = "token"
    position_mode: Literal["default", "v2pe_fix", "v2pe_rnd"] = "default"
    v2pe_delta: float = 1.0
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a number out of range.
        """
        check_ranges(self, steps=1, tokens_per_step=1, samples_per_step=0, pack_tokens=1, pack_tiles=0, max_tiles=1)


def layer_decay(layers: int, factor: float) -> tuple[tuple[str, float], ...]:
    """Rates of a vision tower that fall layer by layer from the last one down (XComposer2 and 4KHD: 0.90).

    The last layer has the full rate, layer l ``factor ** (layers - 1 - l)``, and what stands before the first (patches,
    positions, first norm) ``factor ** layers``. The papers do not print the offsets; these are the usual ones.

    Args:
        layers: Layers of the tower.
        factor: Between two layers.

    Returns:
        For `OptimConfig.lr_scale`.
    """
    inside = tuple((f"vision.layers.{layer}.*", factor ** (layers - 1 - layer)) for layer in range(layers))
    return (*inside, ("vision.*", factor**layers))


def set_trainable(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Makes exactly the matching parameters learn.

    Args:
        model: Any module.
        patterns: Shell patterns over parameter names.

    Returns:
        Names of the parameters that learn now, in model order.

    Raises:
        ConfigError: a pattern that matches no parameter, or no pattern at all.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"pattern '{pattern}' matches no parameter of {type(model).__name__}{nearest(pattern, names)} "
                "(a visual attention pattern needs a model with visual_attention)"
            )
    if not patterns:
        raise ConfigError("a stage must train something: 'trains' is empty")
    learning = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        if parameter.requires_grad:
            learning.append(name)
    return learning
