"""Tiny random language models of every kind: what transformers' own classes say, and what those classes save."""

import dataclasses
import json

import pytest
import torch

from vedere.models.checkpoints import load_model, read_config
from vedere.models.decoder import Decoder

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 2.0],
    "long_factor": [1.5, 2.0, 3.0, 8.0],
    "rope_theta": 1e4,
    "original_max_position_embeddings": 24,
}
CASES = {
    "qwen2": ("Qwen2", {}, 40),
    "qwen2 dynamic": ("Qwen2", {"rope_parameters": DYNAMIC}, 100),
    "qwen2, heads of another width": ("Qwen2", {"head_dim": 6, "num_attention_heads": 5, "num_key_value_heads": 1}, 40),
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True}, 40),
    "qwen3": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 1}, 40),
    "qwen3 biased": ("Qwen3", {"head_dim": 8, "attention_bias": True}, 40),
    "qwen3 mixture": (
        "Qwen3Moe",
        {
            "head_dim": 16,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "norm_topk_prob": True,
        },
        40,
    ),
    "qwen3 mixture, weights as they are": (
        "Qwen3Moe",
        {
            "head_dim": 8,
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 20,
            "norm_topk_prob": False,
        },
        40,
    ),
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}, 40),
    "llama linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, 40),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}, 60),
    "llama yarn": ("Llama", {"rope_parameters": YARN, "head_dim": 32}, 60),
    "qwen2 yarn": ("Qwen2", {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 8, "beta_slow": 2}}, 60),
    "phi3": ("Phi3", {"num_key_value_heads": 4}, 40),
    "phi3, heads of another width": ("Phi3", {"num_key_value_heads": 4, "head_dim": 12}, 40),
    "phi3 short": ("Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 24}, 20),
    "phi3 long": ("Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 24}, 50),
}


def peer_model(name):
    import transformers

    family, changes, _ = CASES[name]
    config = getattr(transformers, f"{family}Config")(**(SHAPE | changes))
    torch.manual_seed(3)
    peer = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.3 if parameter.ndim > 1 else 0.1)
            if parameter.ndim == 1:
                parameter.add_(1)
    return peer


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_the_folder_that_transformers_saves_says_the_same(tmp_path, name):
    peer = peer_model(name)
    peer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert isinstance(model, Decoder)
    ids = torch.randint(0, 300, (CASES[name][2],), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = peer(ids[None]).logits[0]
        found = model.logits(model(model.embed(ids), torch.arange(len(ids)), [0, len(ids)]))
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * max(1, float(expected.abs().max())))


@pytest.mark.peer
@pytest.mark.parametrize("name", ["qwen3", "qwen3 mixture", "phi3 long", "llama3", "llama yarn"])
def test_documents_of_a_pack_are_as_if_alone(tmp_path, name):
    """Lengths on both sides of what the frequencies turn at."""
    peer = peer_model(name)
    peer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids = torch.randint(0, 300, (64,), generator=torch.Generator().manual_seed(5))
    positions = torch.cat([torch.arange(14), torch.arange(50)])
    with torch.no_grad():
        packed = model.logits(model(model.embed(ids), positions, [0, 14, 64]))
        for start, end in ((0, 14), (14, 64)):
            expected = peer(ids[None, start:end]).logits[0]
            tolerance = 2e-5 * max(1, float(expected.abs().max()))
            torch.testing.assert_close(packed[start:end], expected, rtol=0, atol=tolerance)


def test_older_files_say_su_and_keep_the_length_outside(tmp_path):
    config = SHAPE | {"model_type": "phi3", "num_key_value_heads": 4, "original_max_position_embeddings": 24}
    config |= {"rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}}
    config |= {"sliding_window": 262144}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = read_config(tmp_path)
    assert read.layout == "phi3"
    assert (read.model.rope_scaling, read.model.rope_original_positions) == ("longrope", 24)
    assert dataclasses.replace(read.model, rope_attention=None) == read.model
