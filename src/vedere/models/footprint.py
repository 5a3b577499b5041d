"""How much memory a model takes, said before anything is loaded.

Everything follows from the config: parameters from the table of tensor shapes that checkpoints are checked against
(`vedere.models.checkpoints.key_map`), keys and values from the layers, activations from what a pass keeps
(`vedere.models.activations`). Nothing is allocated, not even on torch's meta device.

**Active parameters.** Routing is static (Mono-InternVL, arXiv 2410.08202, eq. 3-4), so a text token reads the language model
only, embedding and head counted as the papers do; a visual token reads patch embedding (or tower), projector, norms, its own
experts and whatever is shared, but neither embedding nor head. 3.1 B stored and 1.9 B active of Mono-InternVL-2B are these.

**Keys and values** take ``2 x layers x kv_heads x head_dim`` values a token; the engine's cache grows by doubling, so while an
answer grows it may hold up to twice as much.

**Optimiser**: AdamW keeps gradient and two moments in float32 (12 bytes a learning parameter); weights that are not float32 add
a float32 master and their own gradient of one backward pass.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.models import xcomposer_files
from vedere.models.activations import prefill_bytes, training_bytes
from vedere.models.checkpoints import key_map
from vedere.models.decoder import DecoderConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.published import ModelConfig, read_config
from vedere.models.releases import RELEASES, find_release
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import XComposer2Config

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}

MINI = MonoInternVLConfig(
    vision=PatchConfig(width=384, patch=16, tile=160, stem=("lite0", "reader")),
    decoder=DecoderConfig(
        hidden_size=576,
        ffn_size=1536,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        vocab_size=49152,
        rope_theta=100_000.0,
        max_positions=8192,
        tied_head=True,
        visual_ffn=True,
        visual_attention=True,
    ),
)
"""`vedere-mini`: SmolLM2-135M with visual experts."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What planning needs to know of a model.

    Attributes:
        name: As it was asked for.
        model: Shape.
        extras: Fields of config.json beyond the shape, which say how pictures are cut.
    """

    name: str
    model: ModelConfig
    extras: Mapping[str, Any]


def _cutting(model: ModelConfig) -> dict[str, Any]:
    return xcomposer_files.extras_of({}, model) if isinstance(model, XComposerConfig) else {"max_dynamic_patch": 12}


NAMED: Mapping[str, ModelShape] = {
    "mini": ModelShape(name="mini", model=MINI, extras={"max_dynamic_patch": 1}),
    **{
        name: ModelShape(name=name, model=known.model, extras=_cutting(known.model)) for name, known in RELEASES.items()
    },
}


def model_shape(name: Path | str) -> ModelShape:
    """The shape of a named model (the hub's names count too), or of a folder with ``config.json``.

    Raises:
        ConfigError: neither; says which name is nearest.
        CheckpointError: the folder's config cannot be used.
    """
    if str(name) in NAMED:
        return NAMED[str(name)]
    directory = Path(name).expanduser()
    if not (directory / "config.json").is_file():
        release = find_release(str(name))
        if release is not None:
            return NAMED[release.name]
        what = "no config.json in it" if directory.is_dir() else "no such folder"
        raise ConfigError(
            f"unknown model '{name}'{nearest(str(name), NAMED)} (names: {', '.join(NAMED)}; or a folder with config.json: "
            f"{what})"
        )
    read = read_config(directory)
    return ModelShape(name=str(name), model=read.model, extras=read.extras)


def dtype_of(name: str) -> torch.dtype:
    """The dtype called ``bf16``, ``fp32`` or ``fp16``.

    Raises:
        ConfigError: any other name.
    """
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype '{name}'{nearest(name, DTYPES)} (expected one of {', '.join(DTYPES)})")
    return DTYPES[name]


def decoder_of(model: ModelConfig) -> DecoderConfig:
    """The language model inside."""
    return model if isinstance(model, DecoderConfig) else model.decoder


def patches_of(model: ModelConfig) -> PatchConfig | None:
    """The visual tokenizer inside; None for a bare language model."""
    if isinstance(model, MonoInternVLConfig):
        return model.vision
    return model.vision.patches if isinstance(model, (InternVLConfig, XComposerConfig, XComposer2Config)) else None


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        parts: By part of the model.
        total: All that is stored.
        active_text: Read for a text token.
        active_visual: Read for a visual token; 0 for a bare language model.
    """

    parts: Mapping[str, int]
    total: int
    active_text: int
    active_visual: int


_PARTS = (  # the first pattern that matches
    ("decoder.embed.*", "embedding"),
    ("decoder.head.*", "head"),
    ("decoder.layers.*.attention.text.*", "attention"),
    ("decoder.layers.*.attention.visual.*", "visual attention experts"),
    ("decoder.layers.*.partial.*", "partial LoRA"),
    ("decoder.layers.*.ffn.text.*", "feed-forward"),  # of a mixture: all members, of which a token sees some
    ("decoder.layers.*.ffn.visual.*", "visual feed-forward experts"),
    ("decoder.*", "norms"),
    ("vision.layers.*", "vision tower"),
    ("vision.pre_norm.*", "vision tower"),
    ("stem.*", "stem"),
    ("vision.*", "patch embedding"),
    ("sampler.*", "sampler"),
    ("projector.*", "projector"),
    ("row_end", "row end and separator"),
    ("separator", "row end and separator"),
    ("image_*", "projector"),  # XComposer's flags around a picture
)
_SEEN = (
    "stem",
    "patch embedding",
    "vision tower",
    "sampler",
    "projector",
    "norms",
    "partial LoRA",
    "row end and separator",
)
_TEXT = ("embedding", "head", "attention", "feed-forward", "norms")


def parameters(model: ModelConfig) -> Parameters:
    """Counts the parameters of a model."""
    parts: dict[str, int] = {}
    for name, shape in key_map(model).own_shapes.items():
        part = next(part for pattern, part in _PARTS if fnmatch.fnmatchcase(name, pattern))
        parts[part] = parts.get(part, 0) + math.prod(shape)
    decoder, seen = decoder_of(model), 0
    read = dict(parts)
    if decoder.moe_size:
        router = decoder.layers * decoder.moe_size * decoder.hidden_size
        members = (parts["feed-forward"] - router) // decoder.moe_size
        read["feed-forward"] = router + members * decoder.moe_active
    if patches_of(model) is not None:
        seen = sum(parts.get(part, 0) for part in _SEEN)
        for visual, text in (
            ("visual attention experts", "attention"),
            ("visual feed-forward experts", "feed-forward"),
        ):
            seen += parts.get(visual) or read[text]
    return Parameters(
        parts=parts,
        total=sum(parts.values()),
        active_text=sum(read.get(part, 0) for part in _TEXT),
        active_visual=seen,
    )


def kv_bytes_per_token(model: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of keys and values of one token."""
    decoder = decoder_of(model)
    return 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * dtype.itemsize


def optimizer_bytes(learning: int, dtype: torch.dtype) -> int:
    """Gradients, moments and masters of ``learning`` parameters."""
    return learning * (12 if dtype == torch.float32 else 16 + dtype.itemsize)


def learning_parameters(model: ModelConfig, trains: Sequence[str]) -> int:
    """Parameters that a stage's patterns select."""
    shapes = key_map(model).own_shapes
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in trains)
    )


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory of answering one prompt; bytes.

    Attributes:
        parameters: Counts.
        weights: All weights.
        kv_per_token: Keys and values of a token.
        tokens: Prompt and answer.
        limit: Positions that the model has.
        kv: Keys and values of ``tokens``.
        activations: Most that a prompt's pass holds beside weights and keys (`prefill_bytes`).
    """

    parameters: Parameters
    weights: int
    kv_per_token: int
    tokens: int
    limit: int
    kv: int
    activations: int

    @property
    def total(self) -> int:
        """Everything at once."""
        return self.weights + self.kv + self.activations

    @property
    def fits(self) -> bool:
        """Whether the model has enough positions."""
        return self.tokens <= self.limit


def footprint(
    model: ModelConfig, *, dtype: torch.dtype, prompt: int, new_tokens: int = 0, tiles: int = 0, chunk: int = 512
) -> Footprint:
    """Memory of inference.

    Args:
        model: Shape.
        dtype: Of weights, keys and activations.
        prompt: Prompt tokens, visual ones included.
        new_tokens: Tokens of the answer.
        tiles: Tiles of all pictures.
        chunk: Most prompt tokens of a pass.

    Raises:
        ConfigError: float16 for a Mono-InternVL, which overflows in it.
    """
    if dtype == torch.float16 and isinstance(model, MonoInternVLConfig):
        raise ConfigError("float16 overflows in Mono-InternVL (NaN logits on the released weights); use bf16 or fp32")
    count = parameters(model)
    each = kv_bytes_per_token(model, dtype)
    return Footprint(
        parameters=count,
        weights=count.total * dtype.itemsize,
        kv_per_token=each,
        tokens=prompt + new_tokens,
        limit=decoder_of(model).context,
        kv=each * (prompt + new_tokens),
        activations=prefill_bytes(model, dtype=dtype, prompt=prompt, tiles=tiles, chunk=chunk),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingFootprint:
    """Memory of a training step; bytes.

    Attributes:
        learning: Parameters that learn.
        weights: All weights.
        optimizer: Gradients, moments, masters.
        activations: What the backward pass of one pack needs.
    """

    learning: int
    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Everything at once."""
        return self.weights + self.optimizer + self.activations


def training_footprint(
    model: ModelConfig,
    *,
    dtype: torch.dtype,
    trains: Sequence[str],
    tokens: int,
    tiles: int,
    document: int,
    targets: int | None = None,
    checkpoint_layers: bool = False,
) -> TrainingFootprint:
    """Memory of a training step.

    Args:
        model: Shape.
        dtype: Of weights and activations.
        trains: Patterns over parameter names.
        tokens: Tokens of a pack, visual ones included.
        tiles: Tiles of a pack.
        document: Tokens of a document.
        targets: Rows that predict something; None: all text rows.
        checkpoint_layers: Whether layers are recomputed.
    """
    learning = learning_parameters(model, trains)
    return TrainingFootprint(
        learning=learning,
        weights=parameters(model).total * dtype.itemsize,
        optimizer=optimizer_bytes(learning, dtype),
        activations=training_bytes(
            model,
            dtype=dtype,
            trains=trains,
            tokens=tokens,
            tiles=tiles,
            document=document,
            targets=targets,
            checkpoint_layers=checkpoint_layers,
        ),
    )
