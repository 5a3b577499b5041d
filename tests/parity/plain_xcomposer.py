"""The forward passes of both XComposer generations written once more, plainly, from the published descriptions.

They share no line with the package. One sequence at a time, no cache, no packing, no routing; ids are -100 where a picture is.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F


class Plain:
    """Tensors of an original folder and the maths on them."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.tensors = load_file(folder / "model.safetensors")
        self.longest = 0  # tokens of the longest sequence so far, for which the rotary tables are made

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.tensors[f"{name}.bias"], eps)

    def rms(self, x: Tensor, name: str) -> Tensor:
        return (
            x / (x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]).sqrt() * self.tensors[f"{name}.weight"]
        )

    @staticmethod
    def look(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Attention of everything to everything, ``[N, T, C]``."""
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def turned(self, part: Tensor) -> Tensor:
        """Heads ``[T, H, d]`` rotated by their place."""
        size, theta = part.shape[-1], self.config.get("rope_theta", 10_000)
        scaling, places = self.config.get("rope_scaling") or {}, torch.arange(len(part))
        if scaling.get("type") == "linear":
            places = places / scaling["factor"]
        if scaling.get("type") == "dynamic" and self.longest > self.config["max_position_embeddings"]:
            stretch = scaling["factor"] * self.longest / self.config["max_position_embeddings"] - scaling["factor"] + 1
            theta = theta * stretch ** (size / (size - 2))
        angles = places[:, None] / theta ** (torch.arange(0, size, 2) / size)
        cos, sin = (table.repeat(1, 2)[:, None] for table in (angles.cos(), angles.sin()))
        front, back = part.chunk(2, -1)
        return part * cos + torch.cat([-back, front], -1) * sin

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Heads ``[T, H, d]``, ``[T, K, d]`` to ``[T, H d]``."""
        future, out = torch.ones(len(q), len(q)).triu(1).bool(), []
        q, k = self.turned(q), self.turned(k)
        for head in range(q.shape[1]):
            own = head * k.shape[1] // q.shape[1]
            weights = (q[:, head] @ k[:, own].T / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf).softmax(-1)
            out.append(weights @ v[:, own])
        return torch.cat(out, -1)


class PlainFirst(Plain):
    """XComposer: EVA, perceive sampler, InternLM with LoRA wherever its file has factors."""

    def tower(self, pixels: Tensor) -> Tensor:
        vision, name = self.config["visual_encoder"], "visual_encoder."
        eps, weight = vision["layer_norm_eps"], self.tensors[f"{name}patch_embed.proj.weight"]
        x = F.conv2d(pixels, weight, self.tensors[f"{name}patch_embed.proj.bias"], stride=vision["patch_size"])
        x = torch.cat([self.tensors[f"{name}cls_token"].expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self.tensors[f"{name}pos_embed"]
        for number in range(vision["depth"]):
            block = f"{name}blocks.{number}"
            bias = None
            if vision["qkv_bias"]:
                q_bias, v_bias = self.tensors[f"{block}.attn.q_bias"], self.tensors[f"{block}.attn.v_bias"]
                bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
            parts = F.linear(self.norm(x, f"{block}.norm1", eps), self.tensors[f"{block}.attn.qkv.weight"], bias).chunk(
                3, -1
            )
            x = x + self.linear(self.look(*parts, vision["num_heads"]), f"{block}.attn.proj")
            hidden = F.gelu(self.linear(self.norm(x, f"{block}.norm2", eps), f"{block}.mlp.fc1"))
            x = x + self.linear(hidden, f"{block}.mlp.fc2")
        return x

    def sampled(self, picture: Tensor) -> Tensor:
        config, name = self.config["perceive_sampler"], "Qformer.bert."
        eps, heads = config["layer_norm_eps"], config["num_attention_heads"]
        x = self.norm(self.tensors["query_tokens"], f"{name}embeddings.LayerNorm", eps).expand(len(picture), -1, -1)
        for number in range(config["num_hidden_layers"]):
            layer = f"{name}encoder.layer.{number}"
            sources = [("attention", None)]
            if number % config["cross_attention_freq"] == 0:
                sources.append(("crossattention", picture))
            for part, source in sources:
                seen = x if source is None else source
                q = self.linear(x, f"{layer}.{part}.self.query")
                k, v = (self.linear(seen, f"{layer}.{part}.self.{leaf}") for leaf in ("key", "value"))
                y = self.linear(self.look(q, k, v, heads), f"{layer}.{part}.output.dense")
                x = self.norm(y + x, f"{layer}.{part}.output.LayerNorm", eps)
            y = self.linear(F.gelu(self.linear(x, f"{layer}.intermediate_query.dense")), f"{layer}.output_query.dense")
            x = self.norm(y + x, f"{layer}.output_query.LayerNorm", eps)
        return x

    def image_embeds(self, pixels: Tensor) -> Tensor:
        y = self.linear(self.sampled(self.norm(self.tower(pixels), "ln_vision", 1e-5)), "internlm_proj")
        start, end = (self.tensors[f"flag_image_{side}"].expand(len(y), 1, -1) for side in ("start", "end"))
        return torch.cat([start, y, end], 1)

    def adapted(self, x: Tensor, name: str) -> Tensor:
        out = self.linear(x, name)
        if f"{name}.lora_A.weight" not in self.tensors:
            return out
        lora = self.config["internlm_lora"]
        low = x @ self.tensors[f"{name}.lora_A.weight"].T @ self.tensors[f"{name}.lora_B.weight"].T
        return out + low * lora["lora_alpha"] / lora["lora_r"]

    def logits(self, ids: Tensor, pictures: Tensor | None) -> tuple[Tensor, Tensor]:
        """(embeddings ``[T, D]``, logits ``[T, V]``)."""
        self.longest = max(self.longest, len(ids))
        x = self.tensors["internlm_model.model.embed_tokens.weight"][ids.clamp(min=0)]
        if pictures is not None:
            x[ids < 0] = pictures.flatten(0, 1)
        embeds, heads = x, self.config["num_attention_heads"]
        for number in range(self.config["num_hidden_layers"]):
            layer = f"internlm_model.model.layers.{number}"
            y = self.rms(x, f"{layer}.input_layernorm")
            q, k, v = (self.adapted(y, f"{layer}.self_attn.{n}_proj").unflatten(-1, (heads, -1)) for n in "qkv")
            x = x + self.adapted(self.causal(q, k, v), f"{layer}.self_attn.o_proj")
            y = self.rms(x, f"{layer}.post_attention_layernorm")
            y = F.silu(self.adapted(y, f"{layer}.mlp.gate_proj")) * self.adapted(y, f"{layer}.mlp.up_proj")
            x = x + self.adapted(y, f"{layer}.mlp.down_proj")
        return embeds, self.linear(self.rms(x, "internlm_model.model.norm"), "internlm_model.lm_head")


class PlainSecond(Plain):
    """XComposer2: CLIP tower, global and local views (4KHD) or one square a picture, partial LoRA."""

    def tower(self, pixels: Tensor) -> Tensor:
        vision, name = self.config["vision_config"], "vit.vision_tower.vision_model."
        eps, heads = vision["layer_norm_eps"], vision["num_attention_heads"]
        x = F.conv2d(pixels, self.tensors[f"{name}embeddings.patch_embedding.weight"], stride=vision["patch_size"])
        first = self.tensors[f"{name}embeddings.class_embedding"].expand(len(x), 1, -1)
        x = (
            torch.cat([first, x.flatten(2).transpose(1, 2)], 1)
            + self.tensors[f"{name}embeddings.position_embedding.weight"]
        )
        x = self.norm(x, f"{name}pre_layrnorm", eps)
        for number in range(vision["num_hidden_layers"]):
            layer = f"{name}encoder.layers.{number}"
            y = self.norm(x, f"{layer}.layer_norm1", eps)
            q, k, v = (self.linear(y, f"{layer}.self_attn.{part}_proj") for part in "qkv")
            x = x + self.linear(self.look(q, k, v, heads), f"{layer}.self_attn.out_proj")
            y = self.linear(self.norm(x, f"{layer}.layer_norm2", eps), f"{layer}.mlp.fc1")
            x = x + self.linear(y * torch.sigmoid(1.702 * y), f"{layer}.mlp.fc2")
        return x

    def picture(self, canvas: Tensor) -> Tensor:
        """Tokens of a normalised picture ``[3, H, W]`` before the projector, read cell by cell."""
        if "sub_image_size" not in self.config:
            return self.tower(canvas[None])[0, 1:]
        side, patch = self.config["sub_image_size"], self.config["vision_config"]["patch_size"]
        rows, columns, cells = canvas.shape[1] // side, canvas.shape[2] // side, side // patch
        end, between = self.tensors["plora_sub_GN"].flatten(), self.tensors["plora_glb_GN"].flatten()
        small = F.interpolate(canvas[None], size=(side, side), mode="bicubic", align_corners=False)
        tiles = [
            canvas[:, r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(rows) for c in range(columns)
        ]
        seen = self.tower(torch.cat([small, torch.stack(tiles)]))[:, 1:].unflatten(1, (cells, cells))
        tokens = []
        for height, width, offset in ((1, 1, 0), (rows, columns, 1)):
            for row in range(0, height * cells, 2):
                for column in range(0, width * cells, 2):
                    tile = seen[offset + (row // cells) * width + column // cells]
                    r, c = row % cells, column % cells
                    tokens.append(torch.cat([tile[r, c], tile[r, c + 1], tile[r + 1, c], tile[r + 1, c + 1]]))
                tokens.append(end)
            if offset == 0:
                tokens.append(between)
        return torch.stack(tokens)

    def project(self, x: Tensor) -> Tensor:
        return self.linear(F.gelu(self.linear(x, "vision_proj.0")), "vision_proj.2")

    def partly(self, x: Tensor, name: str, image: Tensor) -> Tensor:
        low = x @ self.tensors[f"{name}.Plora_A.weight"].T @ self.tensors[f"{name}.Plora_B.weight"].T
        scale = self.config["plora_alpha"] / self.config["plora_r"]
        return self.linear(x, name) + torch.where(image[:, None], low * scale, torch.zeros(()))

    def logits(self, ids: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(embeddings ``[T, D]``, logits ``[T, V]``)."""
        self.longest = max(self.longest, len(ids))
        x, image = self.tensors["model.tok_embeddings.weight"][ids.clamp(min=0)], ids < 0
        if features is not None:
            x[image] = features
        embeds, heads, kv = x, self.config["num_attention_heads"], self.config["num_key_value_heads"]
        for number in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{number}"
            y = self.partly(self.rms(x, f"{layer}.attention_norm"), f"{layer}.attention.wqkv", image)
            group = y.unflatten(-1, (kv, heads // kv + 2, -1))
            y = self.causal(group[:, :, :-2].flatten(1, 2), group[:, :, -2], group[:, :, -1])
            x = x + self.partly(y, f"{layer}.attention.wo", image)
            y, place = self.rms(x, f"{layer}.ffn_norm"), f"{layer}.feed_forward"
            y = F.silu(self.partly(y, f"{place}.w1", image)) * self.partly(y, f"{place}.w3", image)
            x = x + self.partly(y, f"{place}.w2", image)
        return embeds, self.linear(self.rms(x, "model.norm"), "output")
