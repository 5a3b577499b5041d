"""InternVL's forward pass written once more, plainly, from the published description: it shares no line with the package.

Reads a folder in the original names with float32 weights (Qwen2, Qwen3 or InternLM2 language model) and computes what the
recorded folders record. One row at a time, no cache, no packing, no routing.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F


class PlainInternVL:
    """Tensors of an original folder and the maths on them."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.tensors = load_file(folder / "model.safetensors")
        self.vision, self.llm = self.config["vision_config"], self.config["llm_config"]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    @staticmethod
    def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight

    # --- tower -----------------------------------------------------------------------------------------------------------

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, eps = self.tensors[f"{name}.weight"], self.vision["layer_norm_eps"]
        if self.vision["norm_type"] == "rms_norm":
            return self._rms(x, weight, eps)
        return F.layer_norm(x, weight.shape, weight, self.tensors[f"{name}.bias"], eps)

    def states(self, pixels: Tensor) -> list[Tensor]:
        """Embeddings and the output of every block, ``[N, 1 + patches, V]`` each."""
        name, patch = "vision_model.embeddings", self.vision["patch_size"]
        weight, bias = (self.tensors[f"{name}.patch_embedding.{part}"] for part in ("weight", "bias"))
        x = F.conv2d(pixels, weight, bias, stride=patch).flatten(2).transpose(1, 2)
        first = self.tensors[f"{name}.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([first, x], 1) + self.tensors[f"{name}.position_embedding"]
        states = [x]
        for number in range(self.vision["num_hidden_layers"]):
            block = f"vision_model.encoder.layers.{number}"
            x = x + self.tensors[f"{block}.ls1"] * self._look(self._norm(x, f"{block}.norm1"), f"{block}.attn")
            hidden = F.gelu(self._linear(self._norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + self.tensors[f"{block}.ls2"] * self._linear(hidden, f"{block}.mlp.fc2")
            states.append(x)
        return states

    def _look(self, x: Tensor, name: str) -> Tensor:
        q, k, v = self._linear(x, f"{name}.qkv").chunk(3, -1)
        if self.vision["qk_normalization"]:
            q = self._rms(q, self.tensors[f"{name}.q_norm.weight"], self.vision["layer_norm_eps"])
            k = self._rms(k, self.tensors[f"{name}.k_norm.weight"], self.vision["layer_norm_eps"])
        heads = self.vision["num_attention_heads"]
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self._linear((weights @ v).transpose(1, 2).flatten(2), f"{name}.proj")

    def features(self, pixels: Tensor) -> Tensor:
        """Projected features ``[N, P, D]``, placed token by token as the two orders are defined."""
        x = self.states(pixels)[self.config["select_layer"]][:, 1:]
        side = int(x.shape[1] ** 0.5)
        grid, half = x.unflatten(1, (side, side)), side // 2
        tokens = []
        for place in range(half * half):
            row, column = divmod(place, half)
            if self.config["ps_version"] == "v1":  # the grid of tokens is transposed
                row, column = column, row
            corners = [grid[:, 2 * row + dr, 2 * column + dc] for dr in (0, 1) for dc in (0, 1)]
            tokens.append(torch.cat(corners, -1))
        y = torch.stack(tokens, 1)
        y = F.layer_norm(y, y.shape[-1:], self.tensors["mlp1.0.weight"], self.tensors["mlp1.0.bias"], 1e-5)
        return self._linear(F.gelu(self._linear(y, "mlp1.1")), "mlp1.3")

    # --- language model --------------------------------------------------------------------------------------------------

    def logits(self, ids: Tensor, features: Tensor | None, context: int) -> Tensor:
        """Logits ``[T, vocabulary]`` of one row; ``features`` ``[places, D]`` go where ``ids`` is ``context``."""
        fused = "language_model.model.tok_embeddings.weight" in self.tensors
        x = self.tensors[f"language_model.model.{'tok_embeddings' if fused else 'embed_tokens'}.weight"][ids]
        if features is not None:
            x[ids == context] = features
        eps = self.llm["rms_norm_eps"]
        norms = ("attention_norm", "ffn_norm") if fused else ("input_layernorm", "post_attention_layernorm")
        gate, up, down = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
        if not fused:
            gate, up, down = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
        for number in range(self.llm["num_hidden_layers"]):
            layer = f"language_model.model.layers.{number}"
            y = self._rms(x, self.tensors[f"{layer}.{norms[0]}.weight"], eps)
            x = x + self._attend(y, layer, fused)
            y = self._rms(x, self.tensors[f"{layer}.{norms[1]}.weight"], eps)
            y = F.silu(self._linear(y, f"{layer}.{gate}")) * self._linear(y, f"{layer}.{up}")
            x = x + self._linear(y, f"{layer}.{down}")
        x = self._rms(x, self.tensors["language_model.model.norm.weight"], eps)
        return self._linear(x, f"language_model.{'output' if fused else 'lm_head'}")

    def _attend(self, x: Tensor, layer: str, fused: bool) -> Tensor:
        heads, kv = self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        if fused:
            group = self._linear(x, f"{layer}.attention.wqkv").unflatten(-1, (kv, heads // kv + 2, -1))
            q, k, v = group[:, :, :-2].flatten(1, 2), group[:, :, -2], group[:, :, -1]
        else:
            q = self._linear(x, f"{layer}.self_attn.q_proj").unflatten(-1, (heads, -1))
            k, v = (self._linear(x, f"{layer}.self_attn.{n}_proj").unflatten(-1, (kv, -1)) for n in "kv")
        if f"{layer}.self_attn.q_norm.weight" in self.tensors:
            q = self._rms(q, self.tensors[f"{layer}.self_attn.q_norm.weight"], self.llm["rms_norm_eps"])
            k = self._rms(k, self.tensors[f"{layer}.self_attn.k_norm.weight"], self.llm["rms_norm_eps"])
        size = q.shape[-1]
        angles = torch.arange(len(x))[:, None] / self.llm["rope_theta"] ** (torch.arange(0, size, 2) / size)
        cos, sin = (part.repeat(1, 2)[:, None] for part in (angles.cos(), angles.sin()))

        def turned(part: Tensor) -> Tensor:
            front, back = part.chunk(2, -1)
            return part * cos + torch.cat([-back, front], -1) * sin

        out = []
        for head in range(heads):
            q_h, k_h = turned(q)[:, head], turned(k)[:, head * kv // heads]
            future = torch.ones(len(x), len(x)).triu(1).bool()
            weights = (q_h @ k_h.T / size**0.5).masked_fill(future, -torch.inf).softmax(-1)
            out.append(weights @ v[:, head * kv // heads])
        return self._linear(torch.cat(out, -1), f"{layer}.attention.wo" if fused else f"{layer}.self_attn.o_proj")
