"""InternVL3-1B's shape with random weights, in vedere and in transformers: the same numbers under two sets of names.

Used by `cpu_inference.py`. transformers' class is `InternVLForConditionalGeneration` (its own port of InternVL, not the
released remote code); vedere's weights are written once, and the peer's are the same tensors, split and renamed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from vedere.models.checkpoints import save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.patches import PatchConfig

IMAGE_ID = 151667
SHAPE = InternVLConfig(
    vision=InternViTConfig(patches=PatchConfig(width=1024)),
    decoder=DecoderConfig(
        hidden_size=896,
        ffn_size=4864,
        layers=24,
        heads=14,
        kv_heads=2,
        head_dim=64,
        vocab_size=151674,
        norm_eps=1e-6,
        qkv_bias=True,
    ),
)


def random_model(config: InternVLConfig = SHAPE) -> InternVL:
    """The model in bfloat16; every map keeps the size of what goes through it, so that no part of it is idle."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = InternVL(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and layer scales about their usual value, biases and the class token about 0
            middle = 1.0 if "norm" in name and name.endswith("weight") else 0.1 if "scale" in name else 0.0
            spread = 0.02
        else:
            rows = 1.0 if "embed" in name or "positions" in name else parameter[0].numel()
            middle, spread = 0.0, rows**-0.5
        parameter.data.copy_(torch.randn(parameter.shape).mul_(spread).add_(middle))
    return model.eval()


def peer_state(model: InternVL) -> dict[str, Tensor]:
    """The model's tensors under transformers' names."""
    decoder = model.config.decoder
    heads = [n * decoder.head_dim for n in (decoder.heads, decoder.kv_heads, decoder.kv_heads)]
    language, tower = "model.language_model.", "model.vision_tower."
    fused = {
        ".attention.text.qkv": (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"),
        ".ffn.text.gate_up": (".mlp.gate_proj", ".mlp.up_proj"),
        ".attention.qkv": (".attention.q_proj", ".attention.k_proj", ".attention.v_proj"),
    }
    renamed = (
        ("decoder.embed.", language + "embed_tokens."),
        ("decoder.layers.", language + "layers."),
        ("decoder.norm.", language + "norm."),
        ("decoder.head.", "lm_head."),
        (".attention.text.out.", ".self_attn.o_proj."),
        (".ffn.text.down.", ".mlp.down_proj."),
        (".attention_norm.", ".input_layernorm."),
        (".ffn_norm.", ".post_attention_layernorm."),
        ("vision.cls", tower + "embeddings.cls_token"),
        ("vision.positions", tower + "embeddings.position_embeddings"),
        ("vision.patch.", tower + "embeddings.patch_embeddings.projection."),
        ("vision.layers.", tower + "encoder.layer."),
        (".attention.out.", ".attention.projection_layer."),
        (".ffn.fc", ".mlp.fc"),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".scale", ".lambda_"),
        ("projector.norm.", "model.multi_modal_projector.layer_norm."),
        ("projector.fc", "model.multi_modal_projector.linear_"),
    )
    state = {}
    for name, tensor in model.state_dict().items():
        parts = {name: tensor}
        for own, theirs in fused.items():
            if own + "." in name:
                sizes = heads if "text.qkv" in own else [len(tensor) // len(theirs)] * len(theirs)
                parts = {
                    name.replace(own, their): part for their, part in zip(theirs, tensor.split(sizes), strict=True)
                }
                break
        for new, part in parts.items():
            for own, their in renamed:
                new = new.replace(own, their)
            state[new] = part[None, None] if "cls_token" in new else part[None] if "position_emb" in new else part
    return state


def peer_model(model: InternVL) -> Any:
    """transformers' model with the same weights."""
    from transformers import InternVLConfig as PeerConfig
    from transformers import InternVLForConditionalGeneration, Qwen2Config
    from transformers.models.internvl.configuration_internvl import InternVLVisionConfig

    vision, decoder = model.config.vision, model.config.decoder
    config = PeerConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=vision.patches.width,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.heads,
            intermediate_size=vision.ffn_size,
            attention_bias=vision.qkv_bias,
        ),
        text_config=Qwen2Config(
            hidden_size=decoder.hidden_size,
            intermediate_size=decoder.ffn_size,
            num_hidden_layers=decoder.layers,
            num_attention_heads=decoder.heads,
            num_key_value_heads=decoder.kv_heads,
            vocab_size=decoder.vocab_size,
            max_position_embeddings=decoder.max_positions,
            rms_norm_eps=decoder.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": decoder.rope_theta},
            tie_word_embeddings=False,
        ),
        image_token_id=IMAGE_ID,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        peer = InternVLForConditionalGeneration(config)
    state = {name: tensor.contiguous() for name, tensor in peer_state(model).items()}
    peer.load_state_dict(state, strict=True, assign=True)
    for module in peer.modules():  # tables that are in no file were made on the meta device
        if hasattr(module, "inv_freq"):
            module.__init__(config.text_config)
    return peer.eval()


def write_both(directory: Path) -> tuple[Path, Path]:
    """Folders of both forms, made where they are missing: 1.9 GB each."""
    own, theirs = directory / "vedere", directory / "transformers"
    if not (own / "model.safetensors").is_file() or not (theirs / "model.safetensors").is_file():
        model = random_model()
        save_model(model, own)
        peer_model(model).save_pretrained(theirs)
    return own, theirs
