"""The decoder-only language model of every system here: packed tokens in, hidden states out.

InternLM2, Qwen2.5 and Llama (SmolLM2) differ in biases, head counts and rotary settings only, so one class serves them
all; Mono-InternVL adds visual experts to it (arXiv 2410.08202, eq. 3). There is no batch axis: documents stand one after the
other and `segments` are their borders. The head is applied only where a caller asks for it (`logits`), in float32.

Axes: T tokens, D width, d head width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vedere.errors import ConfigError
from vedere.models.attention import Attention, AttentionExpert, AttentionPass, Backend, KeyValueCache
from vedere.models.experts import Experts, SpanRouter
from vedere.models.layers import RMSNorm, SwiGLU
from vedere.models.positions import dynamic_base, rotary_table


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder.

    Attributes:
        hidden_size: Width D.
        ffn_size: Feed-forward width F.
        layers: Number of layers.
        heads: Query heads H.
        kv_heads: Key-value heads K.
        head_dim: Head width d.
        vocab_size: Rows V of the embedding.
        norm_eps: Epsilon of every RMSNorm.
        rope_theta: Rotary base.
        rope_scaling: ``dynamic`` is InternLM2's dynamic NTK beyond ``max_positions``.
        rope_factor: Factor s of dynamic NTK.
        max_positions: Trained length M.
        qkv_bias: Biases on query, key and value.
        out_bias: Bias on the attention output.
        ffn_bias: Biases in the feed-forward maps.
        tied_head: The head is the embedding.
        visual_ffn: Visual feed-forward experts (Mono-InternVL).
        visual_attention: Visual attention experts (Mono-InternVL-1.5).
        v2pe: Fractional positions replace rope scaling; rotation then runs in float32.
    """

    hidden_size: int
    ffn_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_scaling: Literal["none", "dynamic"] = "none"
    rope_factor: float = 2.0
    max_positions: int = 32768
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    tied_head: bool = False
    visual_ffn: bool = False
    visual_attention: bool = False
    v2pe: bool = False

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: heads that do not group, or an odd head width.
        """
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary halves need an even width")


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each over experts.

    Args:
        config: Shape.
        index: Place in the stack, which names the cache row.
    """

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)

        def projections() -> AttentionExpert:
            return AttentionExpert(
                config.hidden_size, config.heads, config.kv_heads, config.head_dim, config.qkv_bias, config.out_bias
            )

        def feed_forward() -> SwiGLU:
            return SwiGLU(config.hidden_size, config.ffn_size, config.ffn_bias)

        self.attention = Attention(
            projections(),
            projections() if config.visual_attention else None,
            config.heads,
            config.kv_heads,
            config.head_dim,
        )
        self.ffn = Experts(feed_forward(), feed_forward() if config.visual_ffn else None)

    def forward(self, x_TD: Tensor, router: SpanRouter, table: tuple[Tensor, Tensor], step: AttentionPass) -> Tensor:
        """One layer over rows in routed order, ``[T, D]`` to ``[T, D]``."""
        x_TD = x_TD + self.attention.attend(self.attention_norm(x_TD), router, table, step, self.index)
        out: Tensor = x_TD + self.ffn(self.ffn_norm(x_TD), router)
        return out


class Decoder(nn.Module):
    """Embedding, layers, final norm, and a head on request.

    Args:
        config: Shape.
        backend: Attention backend; see `vedere.models.attention`.
    """

    def __init__(self, config: DecoderConfig, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.backend: Backend = backend
        self.checkpoint_layers = False
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        if not config.tied_head:
            self.head: nn.Module = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """``[V, D]``, the embedding where the head is tied."""
        return self.embed.weight if self.config.tied_head else self.head.get_parameter("weight")

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits ``[..., V]`` of hidden states ``[..., D]``."""
        if hasattr(self, "head"):
            out: Tensor = self.head(hidden)
            return out.float()
        return torch.nn.functional.linear(hidden, self.embed.weight).float()

    def rotary(self, positions_T: Tensor, borders: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(cos, sin) ``[T, d]`` of packed documents.

        Dynamic NTK sets the base by each document's own length (its last position + 1): keys of a cache therefore must
        be written with the base in force for the whole answer, which the engine does by refusing longer contexts.
        """
        config = self.config
        if config.v2pe:  # the table is rounded like the activations, but applied in float32
            cos, sin = rotary_table(positions_T, config.head_dim, config.rope_theta, dtype)
            return cos.float(), sin.float()
        bases = None
        if config.rope_scaling == "dynamic" and float(positions_T.max()) + 1 > config.max_positions:
            bases = torch.empty(len(positions_T), dtype=torch.float32, device=positions_T.device)
            for start, end in itertools.pairwise(borders):
                length = float(positions_T[start:end].max()) + 1
                bases[start:end] = dynamic_base(
                    config.rope_theta, length, config.max_positions, config.rope_factor, config.head_dim
                )
        return rotary_table(positions_T, config.head_dim, config.rope_theta, dtype, bases)

    def forward(
        self,
        embeds_TD: Tensor,
        positions_T: Tensor,
        segments: Tensor | Sequence[int],
        span_types_T: Tensor | None = None,
        cache: KeyValueCache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            embeds_TD: Embedded tokens with features already in their places.
            positions_T: Positions, integer or fractional.
            segments: Cumulative document borders ``[S + 1]``, 0 first, T last.
            span_types_T: `SpanKind` a token; None means text only.
            cache: Key-value cache with one slot a document, or None.
            record: Receives the input of every layer and the result, in reading order (for verification).

        Returns:
            ``[T, D]``.

        Raises:
            ValueError: borders or span types that do not fit the tokens.
        """
        borders = segments.tolist() if isinstance(segments, Tensor) else list(segments)
        router = SpanRouter(span_types_T, len(embeds_TD))
        step = AttentionPass(borders, router, embeds_TD.device, self.config.head_dim, self.backend, cache)
        table = self.rotary(positions_T, borders, embeds_TD.dtype)
        if router.order is not None:
            table = (table[0][router.order], table[1][router.order])
        x_TD = router.sort(embeds_TD)
        for layer in self.layers:
            if record is not None:
                record.append(router.unsort(x_TD))
            if self.checkpoint_layers and torch.is_grad_enabled():
                x_TD = torch.utils.checkpoint.checkpoint(layer, x_TD, router, table, step, use_reentrant=False)
            else:
                x_TD = layer(x_TD, router, table, step)
        hidden: Tensor = router.unsort(self.norm(x_TD))
        if record is not None:
            record.append(hidden)
        return hidden
