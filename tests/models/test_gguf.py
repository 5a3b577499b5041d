"""GGUF files of Llama-type models: shape, row order, quantised blocks, damage, and a live peer."""

import numpy as np
import pytest
import torch

from vedere.errors import CheckpointError
from vedere.models import keymaps, sources
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.gguf import gguf_config, read_gguf

CONFIG = DecoderConfig(
    hidden_size=64,
    ffn_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab_size=260,
    rope_theta=100000.0,
    max_positions=512,
    tied_head=True,
)


def write_gguf(path, config=CONFIG, own=None, kind="F32", drop=(), **changes):
    """A small GGUF file written by the `gguf` package; returns the decoder tensors in it."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize
    from tokenizers.pre_tokenizers import ByteLevel

    key_map = keymaps.gguf(config)
    own = own or {name: torch.randn(shape) * 0.1 for name, shape in key_map.own_shapes.items()}
    writer = GGUFWriter(path, changes.pop("architecture", "llama"))
    fields = {
        "block_count": config.layers,
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.ffn_size,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "vocab_size": config.vocab_size,
        "rope.dimension_count": config.head_dim,
    } | changes
    for key, value in fields.items():
        if value is not None:
            (writer.add_string if isinstance(value, str) else writer.add_uint32)(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", config.rope_theta)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.norm_eps)
    tokens = [*sorted(ByteLevel.alphabet()), "ab", *(f"<|extra{i}|>" for i in range(config.vocab_size - 257))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3] * (config.vocab_size - 257))
    writer.add_token_merges(["a b"])
    wanted = GGMLQuantizationType[kind]
    for name, tensor in key_map.to_foreign(own).items():
        if name in drop:
            continue
        data = np.ascontiguousarray(tensor.numpy())
        if kind == "F32" or data.ndim < 2:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return own


def test_float32_tensors_come_back_bit_for_bit_under_vedere_names(tmp_path):
    own = write_gguf(tmp_path / "a.gguf")
    config, tensors = read_gguf(tmp_path / "a.gguf", torch.float32)
    assert config == CONFIG, "1e-5 and 100000.0 must not pick up float32 noise"
    assert tensors.keys() == own.keys()
    assert all(torch.equal(tensors[name], own[name]) for name in own)
    Decoder(config).load_state_dict({n.removeprefix("decoder."): t for n, t in tensors.items()}, strict=True)


def test_query_and_key_rows_are_unpermuted_per_head(tmp_path):
    from gguf import GGUFReader

    own = write_gguf(tmp_path / "a.gguf")
    stored = {tensor.name: torch.tensor(np.array(tensor.data)) for tensor in GGUFReader(tmp_path / "a.gguf").tensors}
    qkv = own["decoder.layers.1.attention.text.qkv.weight"]
    query, key, value = qkv.split([64, 32, 32])
    half = CONFIG.head_dim // 2
    for name, rows, heads in (("attn_q", query, CONFIG.heads), ("attn_k", key, CONFIG.kv_heads)):
        for head in range(heads):
            mine = rows[head * 16 : (head + 1) * 16]
            theirs = stored[f"blk.1.{name}.weight"][head * 16 : (head + 1) * 16]
            for row in range(half):
                assert torch.equal(theirs[2 * row], mine[row])
                assert torch.equal(theirs[2 * row + 1], mine[row + half])
    assert torch.equal(stored["blk.1.attn_v.weight"], value)


@pytest.mark.parametrize(("kind", "most"), [("Q8_0", 0.01), ("Q4_1", 0.1)])
def test_quantised_blocks_are_dequantised_then_rounded_once(tmp_path, kind, most):
    own = write_gguf(tmp_path / "a.gguf", kind=kind)
    _, wide = read_gguf(tmp_path / "a.gguf", torch.float32)
    _, narrow = read_gguf(tmp_path / "a.gguf")
    for name, tensor in own.items():
        assert torch.equal(wide[name].to(torch.bfloat16), narrow[name])
        assert (wide[name] - tensor).norm() <= most * tensor.norm()
    name = "decoder.layers.0.attention.text.qkv.weight"
    assert not torch.equal(wide[name], own[name]), "these blocks lose something, or nothing was quantised"


def test_a_head_of_its_own_is_read(tmp_path):
    config = DecoderConfig(**{**CONFIG.__dict__, "tied_head": False})
    own = write_gguf(tmp_path / "a.gguf", config)
    read, tensors = read_gguf(tmp_path / "a.gguf", torch.float32)
    assert read == config
    assert torch.equal(tensors["decoder.head.weight"], own["decoder.head.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "holds architecture 'qwen2'; expected 'llama'"),
        ({"block_count": None}, "'llama.block_count' is missing; expected a positive number"),
        ({"block_count": 70000}, "'llama.block_count' is 70000; expected at most 1024"),
        ({"rope.scaling.type": "yarn"}, r"scales its rotary positions \('yarn'\)"),
        ({"rope.dimension_count": 8}, "4 heads of 16 for width 64, of which 8 rotate"),
        (
            {"embedding_length": 128, "rope.dimension_count": 32},
            r"token_embd.weight is \[260, 64\], expected \[260, 128\]",
        ),
        ({"block_count": 3}, r"missing: blk\.2\."),
        ({"drop": ("blk.0.ffn_up.weight",)}, r"1 missing: blk\.0\.ffn_up\.weight"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, changes, message):
    write_gguf(tmp_path / "a.gguf", **changes)
    with pytest.raises(CheckpointError, match=message):
        read_gguf(tmp_path / "a.gguf")


def test_files_that_are_cut_off_are_refused_at_every_length(tmp_path):
    write_gguf(tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    for length in (0, 3, 8, 100, 3000, len(whole) // 2, len(whole) - 40):
        (tmp_path / "b.gguf").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"b\.gguf"):
            read_gguf(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match=r"nothing\.gguf"):
        read_gguf(tmp_path / "nothing.gguf")


def test_metadata_of_the_wrong_type_is_refused():
    with pytest.raises(CheckpointError, match=r"'llama\.attention\.head_count' is 'nine'"):
        gguf_config({"general.architecture": "llama", "llama.attention.head_count": "nine"})


@pytest.mark.peer
def test_smollm2_equals_the_reader_of_transformers():
    path = sources.find_smollm2()
    if path is None:
        pytest.skip(
            f"{sources.GGUF_NAME} is not on this computer: run vedere once, or copy it into {sources.cache_directory()}"
        )
    gguf_reader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    from transformers import AutoConfig, LlamaForCausalLM

    config, own = read_gguf(path, torch.float32)
    # What from_pretrained(gguf_file=...) calls; the detour through it would need accelerate as well.
    hub = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    with torch.device("meta"):
        empty = LlamaForCausalLM(hub)
    theirs = gguf_reader.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    theirs = {name: torch.as_tensor(tensor) for name, tensor in theirs.items()}
    mine = keymaps.llama(config).to_foreign(own)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []

    peer = LlamaForCausalLM(hub).float().eval()
    peer.load_state_dict(theirs, strict=False)
    peer.tie_weights()
    decoder = Decoder(config).eval()
    decoder.load_state_dict({name.removeprefix("decoder."): tensor for name, tensor in own.items()})
    ids = torch.tensor([1, 4093, 198, 5195, 314, 260, 3575, 282, 4649, 47, 2])
    with torch.inference_mode():
        logits = decoder.logits(decoder(decoder.embed(ids), torch.arange(len(ids)), [0, len(ids)]))
        expected = peer(ids[None]).logits[0]
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-4)
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
