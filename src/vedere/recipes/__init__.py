"""One page of Python a paper: the training section as code. Two papers that differ in numbers differ in config only."""

from __future__ import annotations

from collections.abc import Callable

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.recipes.mono import mono, mono_mini, mono_mini_hd
from vedere.recipes.xcomposer import (
    xcomposer,
    xcomposer2_4khd,
    xcomposer2_4khd_finetune,
    xcomposer2_4khd_lora,
    xcomposer2_vl,
    xcomposer_finetune,
    xcomposer_lora,
)
from vedere.train.run import RunConfig

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "mono": mono,
    "mono-mini": mono_mini,
    "mono-mini-hd": mono_mini_hd,
    "xcomposer": xcomposer,
    "xcomposer-finetune": xcomposer_finetune,
    "xcomposer-lora": xcomposer_lora,
    "xcomposer2-vl": xcomposer2_vl,
    "xcomposer2-4khd": xcomposer2_4khd,
    "xcomposer2-4khd-finetune": xcomposer2_4khd_finetune,
    "xcomposer2-4khd-lora": xcomposer2_4khd_lora,
}


def get_recipe(name: str) -> RunConfig:
    """The config of a recipe.

    Raises:
        ConfigError: no recipe has this name; says which is nearest.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe '{name}'{nearest(name, RECIPES)} (recipes: {', '.join(RECIPES)})")
    return RECIPES[name]()
