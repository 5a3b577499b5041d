"""Laws of LoRA and partial LoRA, and their folders."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_internlm2
import tiny_internvl
import tiny_xcomposer2
from vedere.errors import CheckpointError, ConfigError
from vedere.models.adapters import LoRA, PartialLoRA, attach, detach_lora, learn, load_adapter, merge_lora, save_adapter
from vedere.models.checkpoints import load_model
from vedere.models.decoder import Decoder
from vedere.models.experts import SpanRouter
from vedere.models.keymaps import internlm2, llama

LENGTH = 30
IDS = torch.arange(LENGTH) % 50
TYPES = torch.tensor([0] * 5 + [1] * 12 + [0] * 13)


def decoder(**changes) -> Decoder:
    torch.manual_seed(3)
    return Decoder(small_internlm2.shape(rope_scaling="none", **changes)).eval()


def hidden(model, types=None) -> torch.Tensor:
    model = getattr(model, "decoder", model)
    with torch.no_grad():
        return model(model.embed(IDS), torch.arange(LENGTH), [0, LENGTH], types)


def moved(model, kind) -> None:
    """Gives an adapter values, as training would."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in learn(model, kind):
            parameter.copy_(torch.randn_like(parameter) * 0.2)


@pytest.mark.parametrize("targets", [(), ("attention.wqkv",), ("feed_forward.w3", "attention.wo")])
def test_a_merged_lora_equals_the_adapter(targets):
    model = decoder()
    plain = hidden(model)
    names = attach(model, LoRA(rank=4, alpha=8, targets=targets))
    assert len(names) == 2 * (len(targets) or 5)
    assert torch.equal(hidden(model), plain)  # without effect until it is trained
    moved(model, "lora")
    adapted = hidden(model, TYPES)
    assert (adapted - plain).abs().max() > 0.05
    merge_lora(model)
    assert set(model.state_dict()) == set(decoder().state_dict())
    torch.testing.assert_close(hidden(model, TYPES), adapted, atol=1e-5, rtol=1e-5)


def test_the_adapter_alone_learns():
    model = decoder()
    attach(model, LoRA(rank=4, alpha=4, dropout=0.1, targets=("attention.wqkv",)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(model.embed(IDS), torch.arange(LENGTH), [0, LENGTH]).mul(torch.randn(LENGTH, 32)).sum().backward()
        optimiser.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"layers.{n}.attention.text.qkv.low.lora_{x}" for n in (0, 1) for x in "AB"}


def test_partial_lora_refuses_to_merge_and_says_why():
    model = decoder(partial_rank=4)
    with pytest.raises(
        ConfigError, match=r"belongs to image tokens alone, and a sum into the weights would change text"
    ):
        merge_lora(model)
    with pytest.raises(ConfigError, match=r"no LoRA to merge; attach or load one first"):
        merge_lora(decoder())


def test_lora_on_a_model_with_partial_lora_keeps_both():
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    text, image = hidden(model), hidden(model, TYPES)
    attach(model, LoRA(rank=4, alpha=4))
    moved(model, "lora")
    both = hidden(model, TYPES)
    assert (both - image).abs().max() > 0.05
    low = model.decoder.layers[0].attention.partial["qkv"]
    x = torch.randn(LENGTH, 32)
    router = SpanRouter(TYPES, LENGTH)
    linear = model.decoder.layers[0].attention.text.qkv
    expected = x @ (linear.weight + linear.low.delta(len(linear.weight))).T
    expected[17 + 1 :] += (
        x[17 + 1 :] @ low.delta(len(linear.weight)).T
    )  # the visual rows stand last: 18 text, 12 visual
    with torch.no_grad():
        routed = model.decoder.layers[0].attention.route(x, router, "qkv")
    torch.testing.assert_close(routed, expected.detach(), atol=1e-4, rtol=1e-4)
    merge_lora(model)
    torch.testing.assert_close(hidden(model, TYPES), both, atol=1e-4, rtol=1e-4)
    assert model.decoder.config.partial_rank == 4
    assert (hidden(model) - text).abs().max() > 0.05
    with pytest.raises(ConfigError, match=r"cannot be merged"):
        merge_lora(model)


def test_detached_lora_leaves_no_trace():
    model = decoder()
    plain = hidden(model)
    attach(model, LoRA(rank=2, alpha=2))
    moved(model, "lora")
    assert torch.equal(hidden(detach_lora(model)), plain)


@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj"), ("up_proj", "o_proj")])
def test_a_saved_lora_loads_with_one_call_whatever_is_fused_here(tmp_path, targets):
    model = tiny_internvl.model(tiny_internvl.config(qkv_bias=False))
    attach(model, LoRA(rank=3, alpha=6, targets=targets, naming="llama"))
    moved(model, "lora")
    save_adapter(model, tmp_path, naming="llama")
    again = tiny_internvl.model(tiny_internvl.config(qkv_bias=False))
    load_adapter(again, tmp_path, naming="llama")
    assert torch.equal(hidden(again), hidden(model))
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert len(stored) == 2 * 2 * (len(targets) or 7)
    assert all(name.startswith("base_model.model.language_model.model.layers.") for name in stored)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"


@pytest.mark.parametrize("naming", ["internlm2", "llama"])
def test_a_peft_folder_means_what_its_own_formula_says(tmp_path, naming):
    """W + alpha / r B A under the names and row orders of the release, by hand and loaded as plain weights."""
    shape = small_internlm2.shape(rope_scaling="none")
    names = {"internlm2": internlm2, "llama": llama}[naming](shape)
    leaves = {"internlm2": ["attention.wqkv", "feed_forward.w1"], "llama": ["self_attn.q_proj", "mlp.up_proj"]}[naming]
    base = Decoder(shape).eval()
    foreign = names.to_foreign({f"decoder.{name}": tensor for name, tensor in base.state_dict().items()})
    factors = {}
    for name in [name for name in foreign if any(f".{leaf}." in name for leaf in leaves)]:
        rows, columns = foreign[name].shape
        a, b = torch.randn(4, columns) * 0.2, torch.randn(rows, 4) * 0.2
        key = f"base_model.model.{name.removesuffix('.weight')}"
        factors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
        foreign[name] = foreign[name] + 2.5 * b @ a
    assert len(factors) == 8
    save_file(factors, tmp_path / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 10,
        "target_modules": leaves,
        "bias": "none",
        "lora_dropout": 0.0,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    expected = Decoder(shape).eval()
    expected.load_state_dict({n.removeprefix("decoder."): t for n, t in names.to_own(foreign).items()})
    load_adapter(base, tmp_path, naming=naming)
    torch.testing.assert_close(hidden(base), hidden(expected), atol=1e-5, rtol=1e-5)


def test_a_saved_partial_lora_loads_onto_a_model_without_one(tmp_path):
    model = decoder()
    text = hidden(model)
    attach(model, PartialLoRA(rank=4, alpha=4))
    assert torch.equal(hidden(model, TYPES), hidden(decoder(), TYPES))
    moved(model, "partial")
    assert (hidden(model, TYPES) - text).abs().max() > 0.05
    assert torch.equal(hidden(model), text)
    save_adapter(model, tmp_path, "partial")
    again = decoder()
    load_adapter(again, tmp_path)
    assert torch.equal(hidden(again, TYPES), hidden(model, TYPES))
    assert again.config == model.config
    with pytest.raises(ConfigError, match=r"has partial LoRA of rank 4 already"):
        attach(again, PartialLoRA(rank=4, alpha=4))


def test_what_does_not_fit_is_refused(tmp_path):
    model = decoder()
    with pytest.raises(
        ConfigError, match=r"no linear map is called q_proj; the model's are attention.wo, attention.wqkv"
    ):
        attach(model, LoRA(targets=("q_proj",)))
    with pytest.raises(ConfigError, match=r"rank 0, alpha 64.0, dropout 0.0: expected a rank >= 1"):
        attach(model, LoRA(rank=0))
    with pytest.raises(ConfigError, match=r"no LoRA to save"):
        save_adapter(model, tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter_config.json cannot be read"):
        load_adapter(model, tmp_path / "nothing")
    attach(model, LoRA(rank=2))
    with pytest.raises(ConfigError, match=r"has a LoRA already"):
        attach(model, LoRA(rank=2))
    save_adapter(model, tmp_path)
    with pytest.raises(CheckpointError, match=r"expected names such as"):
        load_adapter(tiny_internvl.model(tiny_internvl.config(qkv_bias=False)), tmp_path, naming="llama")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: torch.zeros(2, 5)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"is \[2, 5\]; expected \[2, "):
        load_adapter(decoder(), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for variant in ({"use_dora": True}, {"alora_invocation_tokens": [5]}, {"init_lora_weights": "pissa_niter_4"}):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | variant))
        with pytest.raises(CheckpointError, match=rf"{next(iter(variant))}.*only plain LoRA is computed here"):
            load_adapter(decoder(), tmp_path)


def test_what_peft_is_told_to_adapt(tmp_path):
    """Ends of names reach every layer; where only some layers are adapted, whole names are given."""
    for targets, told in (
        (("attention.wqkv",), ["attention.wqkv"]),
        (("model.layers.1.attention.wqkv",), ["model.layers.1.attention.wqkv"]),
    ):
        model = decoder()
        attach(model, LoRA(rank=2, alpha=2, targets=targets))
        save_adapter(model, tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == told
        assert load_adapter(decoder(), tmp_path)


PEER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.mark.peer
@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj"), ("*.layers.1.self_attn.o_proj", "mlp.up_proj")])
def test_peft_reads_what_is_saved_here_and_the_other_way_round(tmp_path, targets):
    """The same logits of a tiny Llama of transformers with the adapter put on by peft itself."""
    import transformers

    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**PEER)).eval()
    base.save_pretrained(tmp_path / "base")
    ids = torch.arange(3, 20)

    def ours(model):
        with torch.no_grad():
            return model.logits(model(model.embed(ids), torch.arange(len(ids)), [0, len(ids)]))

    def theirs(model):
        with torch.no_grad():
            return model(ids[None]).logits[0]

    def fresh():
        return transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")

    mine = load_model(tmp_path / "base")
    names = attach(mine, LoRA(rank=3, alpha=7, targets=targets, naming="llama"))
    moved(mine, "lora")
    save_adapter(mine, tmp_path / "mine", naming="llama", base=str(tmp_path / "base"))
    put = peft.PeftModel.from_pretrained(fresh(), tmp_path / "mine").eval()
    assert {name.split(".lora_A")[0] for name, _ in put.named_parameters() if "lora_A" in name} == {
        f"base_model.model.{name}" for name in names
    }
    torch.testing.assert_close(ours(mine), theirs(put), rtol=0, atol=2e-6)
    assert (theirs(put) - theirs(base)).abs().max() > 0.05

    asked = peft.LoraConfig(r=3, lora_alpha=5, target_modules=names, task_type="CAUSAL_LM")
    other = peft.get_peft_model(fresh(), asked).eval()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    other.save_pretrained(tmp_path / "theirs")
    mine = load_model(tmp_path / "base")
    assert load_adapter(mine, tmp_path / "theirs") == sorted(names)
    torch.testing.assert_close(ours(mine), theirs(other), rtol=0, atol=2e-6)
    torch.testing.assert_close(ours(merge_lora(mine)), theirs(other.merge_and_unload()), rtol=0, atol=2e-6)
