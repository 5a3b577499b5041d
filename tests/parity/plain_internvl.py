"""InternVL's forward pass written once more, plainly, from the published description: it shares no line with the package.

Reads a folder in the original names with float32 weights (Qwen2, Qwen3, Llama, Phi-3 or InternLM2 language model; or
Mono-InternVL, whose tower is its patch embedding) and computes what the recorded folders record. One row at a time, no cache,
no packing, no routing.
"""

from __future__ import annotations

import json
import math
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
        blocks = (
            self.vision["num_hidden_layers"] if "vision_model.encoder.layers.0.ls1" in self.tensors else 0
        )  # Mono: none
        for number in range(blocks):
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

    def logits(
        self, ids: Tensor, features: Tensor | None, context: int, positions: Tensor | None = None, length: int = 0
    ) -> Tensor:
        """Logits ``[T, vocabulary]`` of one row; ``features`` ``[places, D]`` go where ``ids`` is ``context``.

        ``length`` is the one that rope scaling goes by, of a padded batch; 0: the row's own.
        """
        fused = "language_model.model.tok_embeddings.weight" in self.tensors
        table = self.tensors[f"language_model.model.{'tok_embeddings' if fused else 'embed_tokens'}.weight"]
        x = table[ids]
        seen = (ids == context)[:, None]
        if features is None:
            seen[:] = False
        else:
            seen[seen.nonzero()[len(features) :, 0]] = False  # an answer may hold that id too: text
            x[seen[:, 0]] = features
        where = torch.arange(len(ids)) if positions is None else positions
        turns = self._turns(where.float(), max(length, len(ids)), positions is not None)
        eps = self.llm["rms_norm_eps"]
        norms = ("attention_norm", "ffn_norm") if fused else ("input_layernorm", "post_attention_layernorm")
        for number in range(self.llm["num_hidden_layers"]):
            layer = f"language_model.model.layers.{number}"
            y = self._rms(x, self.tensors[f"{layer}.{norms[0]}.weight"], eps)
            x = x + self._attend(y, layer, turns)
            y = self._rms(x, self.tensors[f"{layer}.{norms[1]}.weight"], eps)
            if f"{layer}.feed_forward_ve.w1.weight" in self.tensors:
                own, other = (
                    self._glu(y, f"{layer}.{name}", "w1", "w3", "w2") for name in ("feed_forward", "feed_forward_ve")
                )
                x = x + torch.where(seen, other, own)
            elif fused:
                x = x + self._glu(y, f"{layer}.feed_forward", "w1", "w3", "w2")
            else:
                x = x + self._glu(y, f"{layer}.mlp", "gate_proj", "up_proj", "down_proj")
        x = self._rms(x, self.tensors["language_model.model.norm.weight"], eps)
        return x @ self.tensors.get(f"language_model.{'output' if fused else 'lm_head'}.weight", table).T

    def _glu(self, x: Tensor, name: str, gate: str, up: str, down: str) -> Tensor:
        if f"{name}.gate_up_proj.weight" in self.tensors:  # Phi-3
            first, second = self._linear(x, f"{name}.gate_up_proj").chunk(2, -1)
        else:
            first, second = self._linear(x, f"{name}.{gate}"), self._linear(x, f"{name}.{up}")
        return self._linear(F.silu(first) * second, f"{name}.{down}")

    def _turns(self, positions: Tensor, length: int, v2pe: bool) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``[T, 1, d]``; fractional positions override every scaling, as in the original."""
        size = self.llm.get("head_dim") or self.llm["hidden_size"] // self.llm["num_attention_heads"]
        theta, most = self.llm["rope_theta"], self.llm["max_position_embeddings"]
        steps, scale = torch.arange(0, size, 2).double() / size, 1.0
        scaling = {} if v2pe else self.llm.get("rope_scaling") or {}
        kind, factor = scaling.get("type", "default"), scaling.get("factor", 1.0)
        if kind == "dynamic" and length > most:
            theta = theta * (factor * length / most - (factor - 1)) ** (size / (size - 2))
        speed = 1.0 / theta**steps
        if kind == "linear":
            speed = speed / factor
        if kind == "llama3":
            low, high, trained = (
                scaling[name] for name in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            )
            for place, value in enumerate(speed.tolist()):
                wave = 2 * math.pi / value
                if wave > trained / low:
                    speed[place] = value / factor
                elif wave >= trained / high:
                    part = (trained / wave - low) / (high - low)
                    speed[place] = (1 - part) * value / factor + part * value
        if kind in ("su", "longrope"):
            trained = self.llm["original_max_position_embeddings"]
            speed = speed / torch.tensor(scaling["long_factor" if length > trained else "short_factor"]).double()
            scale = math.sqrt(1 + math.log(most / trained) / math.log(trained)) if most > trained else 1.0
        angles = positions[:, None].double() * speed
        cos, sin = ((scale * part).float().repeat(1, 2)[:, None] for part in (angles.cos(), angles.sin()))
        return cos, sin

    def _attend(self, x: Tensor, layer: str, turns: tuple[Tensor, Tensor]) -> Tensor:
        heads, kv = self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        fused, out_name = f"{layer}.attention.wqkv.weight" in self.tensors, f"{layer}.self_attn.o_proj"
        if fused:
            group = self._linear(x, f"{layer}.attention.wqkv").unflatten(-1, (kv, heads // kv + 2, -1))
            q, k, v = group[:, :, :-2].flatten(1, 2), group[:, :, -2], group[:, :, -1]
            out_name = f"{layer}.attention.wo"
        elif f"{layer}.self_attn.qkv_proj.weight" in self.tensors:
            whole = self._linear(x, f"{layer}.self_attn.qkv_proj").unflatten(-1, (heads + 2 * kv, -1))
            q, k, v = whole[:, :heads], whole[:, heads : heads + kv], whole[:, heads + kv :]
        else:
            q = self._linear(x, f"{layer}.self_attn.q_proj").unflatten(-1, (heads, -1))
            k, v = (self._linear(x, f"{layer}.self_attn.{n}_proj").unflatten(-1, (kv, -1)) for n in "kv")
        if f"{layer}.self_attn.q_norm.weight" in self.tensors:
            q = self._rms(q, self.tensors[f"{layer}.self_attn.q_norm.weight"], self.llm["rms_norm_eps"])
            k = self._rms(k, self.tensors[f"{layer}.self_attn.k_norm.weight"], self.llm["rms_norm_eps"])
        size, (cos, sin) = q.shape[-1], turns

        def turned(part: Tensor) -> Tensor:
            front, back = part.chunk(2, -1)
            return part * cos + torch.cat([-back, front], -1) * sin

        out = []
        for head in range(heads):
            q_h, k_h = turned(q)[:, head], turned(k)[:, head * kv // heads]
            future = torch.ones(len(x), len(x)).triu(1).bool()
            weights = (q_h @ k_h.T / size**0.5).masked_fill(future, -torch.inf).softmax(-1)
            out.append(weights @ v[:, head * kv // heads])
        return self._linear(torch.cat(out, -1), out_name)
