"""The decoder-only language model of every system here: packed tokens in, hidden states out.

InternLM2 and 3, Qwen2.5, Qwen3, Llama (SmolLM2) and Phi-3 differ in biases, head norms, head counts and rotary settings only,
so one class serves them all; Qwen3-MoE has a mixture in place of the feed-forward map (`vedere.models.moe`), Mono-InternVL
adds visual experts (arXiv 2410.08202, eq. 3). There is no batch axis: documents stand one after the
other and `segments` are their borders. The head is applied only where a caller asks for it (`logits`), in float32.

Axes: T tokens, D width, d head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vedere.errors import ConfigError
from vedere.models.attention import Attention, AttentionExpert, AttentionPass, Backend, KeyValueCache
from vedere.models.config_fields import check_count
from vedere.models.experts import FeedForward, SpanRouter
from vedere.models.layers import RMSNorm, SwiGLU
from vedere.models.low_rank import LowRank
from vedere.models.moe import MoE
from vedere.models.positions import rotary_table
from vedere.models.rope_scaling import Scaling, check_scaling, packed_frequencies, table_scale


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
        rope_scaling: How the rotary frequencies were stretched (`vedere.models.rope_scaling`); ``dynamic`` is InternLM2's
            dynamic NTK beyond ``max_positions``.
        rope_factor: Factor s of ``dynamic``, ``linear``, ``llama3`` and ``yarn``.
        rope_original_positions: Length of pre-training of ``llama3``, ``longrope`` and ``yarn``.
        rope_low_frequency: Turns within that length below which ``llama3`` divides a frequency by the whole factor.
        rope_high_frequency: Turns above which it leaves a frequency alone.
        rope_short: Divisors of ``longrope`` up to the length of pre-training, one a frequency.
        rope_long: Its divisors beyond that length.
        rope_attention: What ``longrope`` multiplies cosine and sine by; None computes it from the two lengths.
        max_positions: Trained length M.
        qkv_bias: Biases on query, key and value.
        qk_norm: RMSNorm of every query and key head before rotation (Qwen3).
        out_bias: Bias on the attention output.
        ffn_bias: Biases in the feed-forward maps.
        tied_head: The head is the embedding.
        moe_size: Members of the feed-forward mixture (Qwen3-MoE), each of ``ffn_size``; 0: one plain map.
        moe_active: Members that see a token.
        moe_normed: Weights of the active members sum to 1.
        visual_ffn: Visual feed-forward experts (Mono-InternVL).
        visual_attention: Visual attention experts (Mono-InternVL-1.5).
        v2pe: Fractional positions replace rope scaling; rotation then runs in float32.
        partial_rank: Rank of the partial LoRA of every linear map, which image tokens alone take (XComposer2); 0: none.
        partial_alpha: Its scale is ``partial_alpha / partial_rank``.
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
    rope_scaling: Scaling = "none"
    rope_factor: float = 2.0
    rope_original_positions: int = 0
    rope_low_frequency: float = 1.0
    rope_high_frequency: float = 4.0
    rope_short: tuple[float, ...] = ()
    rope_long: tuple[float, ...] = ()
    rope_attention: float | None = None
    max_positions: int = 32768
    qkv_bias: bool = False
    qk_norm: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    tied_head: bool = False
    moe_size: int = 0
    moe_active: int = 0
    moe_normed: bool = True
    visual_ffn: bool = False
    visual_attention: bool = False
    v2pe: bool = False
    partial_rank: int = 0
    partial_alpha: float = 256.0

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: too many layers or members, heads that do not group, an odd head width, rotary fields that do not
                fit, or a mixture without active members or with visual experts.
        """
        check_count("layers", self.layers)
        if self.moe_size:
            check_count("moe_size", self.moe_size)
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary halves need an even width")
        if self.moe_size and not 1 <= self.moe_active <= self.moe_size:
            raise ConfigError(
                f"{self.moe_active} active of {self.moe_size} members of a mixture; expected 1 to {self.moe_size}"
            )
        if self.moe_size and (self.visual_ffn or self.ffn_bias):
            raise ConfigError("a mixture has neither visual feed-forward experts nor biases here; choose one of them")
        if self.partial_rank < 0 or self.partial_alpha <= 0:
            raise ConfigError(
                f"partial_rank {self.partial_rank} with partial_alpha {self.partial_alpha}; expected a rank >= 0 and an "
                "alpha > 0"
            )
        if self.partial_rank and (self.visual_ffn or self.visual_attention or self.moe_size):
            raise ConfigError("partial LoRA stands beside neither visual experts nor a mixture; choose one of them")
        check_scaling(self)

    @property
    def context(self) -> int:
        """Positions of prompt and answer: ``max_positions``, times the factor where dynamic NTK or yarn stretches them."""
        trained = {"dynamic": self.max_positions, "yarn": self.rope_original_positions}.get(self.rope_scaling, 0)
        return max(self.max_positions, 0 if self.v2pe else int(self.rope_factor * trained))


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
                config.hidden_size,
                config.heads,
                config.kv_heads,
                config.head_dim,
                config.qkv_bias,
                config.out_bias,
                config.norm_eps if config.qk_norm else None,
            )

        def feed_forward() -> nn.Module:
            if config.moe_size:
                return MoE(
                    config.hidden_size,
                    config.ffn_size,
                    config.moe_size,
                    config.moe_active,
                    config.moe_normed,
                )
            return SwiGLU(config.hidden_size, config.ffn_size, config.ffn_bias)

        self.attention = Attention(
            projections(),
            projections() if config.visual_attention else None,
            config.heads,
            config.kv_heads,
            config.head_dim,
        )
        self.ffn = FeedForward(feed_forward(), feed_forward() if config.visual_ffn else None)
        if config.partial_rank:
            attach_partial(self, config.partial_rank, config.partial_alpha)

    def forward(
        self,
        x_TD: Tensor,
        router: SpanRouter,
        table: tuple[Tensor, Tensor],
        step: AttentionPass,
        selected: tuple[Tensor, SpanRouter] | None = None,
    ) -> Tensor:
        """One layer over rows in routed order, ``[T, D]`` to ``[T, D]``.

        Args:
            x_TD: Rows.
            router: Their order.
            table: Cosine and sine.
            step: How they attend.
            selected: `SpanRouter.select` of the rows that are wanted, of which ``[M, D]`` is returned; None: all.
        """
        attended = self.attention.attend(self.attention_norm(x_TD), router, table, step, self.index)
        if selected is not None:
            places, router = selected
            x_TD, attended = x_TD[places], attended[places]
        x_TD = x_TD + self.attention.project(attended, router)
        out: Tensor = x_TD + self.ffn(self.ffn_norm(x_TD), router)
        return out


def attach_partial(layer: DecoderLayer, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Gives a layer's four linear maps partial LoRA (XComposer2: w1 and w3, gate and up here, have factors of their own)."""

    def low(linear: nn.Linear, parts: int = 1) -> LowRank:
        rows = linear.out_features // parts
        return LowRank(linear.in_features, [(k * rows, rows) for k in range(parts)], rank, alpha, dropout)

    attention, ffn = layer.attention.text, layer.ffn.text
    assert isinstance(ffn, SwiGLU)  # the config refuses the others
    layer.attention.attach_partial({"qkv": low(attention.qkv), "out": low(attention.out)})
    layer.ffn.attach_partial({"gate_up": low(ffn.gate_up, 2), "down": low(ffn.down)})


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

    def rotary(
        self, positions_T: Tensor, borders: Sequence[int], dtype: torch.dtype, lengths: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(cos, sin) ``[T, d]`` of packed documents.

        ``dynamic`` and ``longrope`` go by ``lengths``, or by each document's own length (its last position + 1).
        """
        config = self.config
        if config.v2pe:  # the table is rounded like the activations, but applied in float32
            cos, sin = rotary_table(positions_T, config.head_dim, config.rope_theta, dtype)
            return cos.float(), sin.float()
        frequencies = packed_frequencies(config, positions_T, borders, lengths)
        return rotary_table(positions_T, config.head_dim, config.rope_theta, dtype, frequencies, table_scale(config))

    def forward(
        self,
        embeds_TD: Tensor,
        positions_T: Tensor,
        segments: Tensor | Sequence[int],
        span_types_T: Tensor | None = None,
        cache: KeyValueCache | None = None,
        record: list[Tensor] | None = None,
        rows_M: Tensor | None = None,
        lengths: Sequence[float] | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            embeds_TD: Embedded tokens with features already in their places.
            positions_T: Positions, integer or fractional.
            segments: Cumulative document borders ``[S + 1]``, 0 first, T last.
            span_types_T: `SpanKind` a token; None means text only.
            cache: Key-value cache with one slot a document, or None.
            record: Receives the input of every layer and the result, in reading order (for verification).
            rows_M: The rows that are wanted, each once: the last layer computes no others. None: all.
            lengths: Length that the rotary frequencies in force are made for, one a document
                (`vedere.models.rope_scaling.RotaryState`); None: each document's own. A cache needs them where they change.

        Returns:
            ``[T, D]``, or ``[M, D]`` in the order of ``rows_M``.

        Raises:
            ValueError: borders or span types that do not fit the tokens.
        """
        borders = segments.tolist() if isinstance(segments, Tensor) else list(segments)
        router = SpanRouter(span_types_T, len(embeds_TD))
        step = AttentionPass(borders, router, embeds_TD.device, self.config.head_dim, self.backend, cache)
        table = self.rotary(positions_T, borders, embeds_TD.dtype, lengths)
        if router.order is not None:
            table = (table[0][router.order], table[1][router.order])
        x_TD = router.sort(embeds_TD)
        last, selected = self.layers[-1], None if rows_M is None else router.select(rows_M)
        for layer in self.layers:
            if record is not None:
                record.append(router.unsort(x_TD))
            call = (x_TD, router, table, step, selected if layer is last else None)
            if self.checkpoint_layers and torch.is_grad_enabled():
                x_TD = torch.utils.checkpoint.checkpoint(layer, *call, use_reentrant=False)
            else:
                x_TD = layer(*call)
        if selected is not None:
            router = selected[1]
        hidden: Tensor = router.unsort(self.norm(x_TD))
        if record is not None:
            record.append(hidden)
        return hidden
