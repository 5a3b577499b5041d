"""The released checkpoints of this line, as data: shape, parameters, context, licence.

Shapes are those of each release's config and of its language model's; parameter counts follow from the shapes (tests build
every one on torch's meta device). Where the paper or the model card printed counts to compare with, they stand in `published`
and the shapes must round to them; where none is known here, `published` is empty and the count is computed only. What the
shapes alone cannot settle is said in `note`; config.json of the files always decides.

Sources: InternVL3 (arXiv 2504.10479, tables 1 and 2), InternVL2.5 (2412.05271), InternVL3.5 (2508.18265), Mono-InternVL
(2410.08202), XComposer2 and 4KHD (2401.16420, 2404.06512), XComposer-2.5
(2407.03320); language models by the configs of their own releases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vedere.models.clip_vit import ClipViTConfig
from vedere.models.decoder import DecoderConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import XComposer2Config

_TILE = PatchConfig(width=1024)
VIT_300M = InternViTConfig(patches=_TILE)
VIT_6B = InternViTConfig(
    patches=PatchConfig(width=3200),
    layers=45,
    heads=25,
    ffn_size=12800,
    norm="rms_norm",
    qkv_bias=False,
    qk_norm=True,
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One released model.

    Attributes:
        name: As commands call it.
        repository: On the hub; ``-hf`` and ``-Instruct`` forms of it have the same shape.
        model: Shape.
        language_model: What it was initialised from.
        template: Conversation template of its config.json.
        licence: Licence of its own part, and of the language model in it; the model card decides.
        published: Printed parameter counts as text (``"938.19 M"``) of ``vision``, ``projector``, ``language``, ``total``.
            Empty: computed from shapes only.
        note: What else to know.
    """

    name: str
    repository: str
    model: InternVLConfig | MonoInternVLConfig | XComposerConfig | XComposer2Config
    language_model: str
    template: str
    licence: str
    published: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def context(self) -> int:
        """Positions of question and answer here, stretched where dynamic NTK does that."""
        return self.model.decoder.context

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of a tile."""
        if isinstance(self.model, XComposerConfig):
            return self.model.tokens_per_picture
        vision = self.model.vision
        return (vision if isinstance(vision, PatchConfig) else vision.patches).tokens_per_tile


def _qwen(width: int, layers: int, heads: int, kv: int, ffn: int, vocab: int = 151674, **more: Any) -> DecoderConfig:
    """Qwen2.5 inside InternVL2.5 and 3: biases on query, key, value; dynamic NTK beyond 32,768; the head untied."""
    fields: dict[str, Any] = {
        "norm_eps": 1e-6,
        "rope_scaling": "dynamic",
        "qkv_bias": True,
        "head_dim": width // heads,
    } | more
    return DecoderConfig(
        hidden_size=width, ffn_size=ffn, layers=layers, heads=heads, kv_heads=kv, vocab_size=vocab, **fields
    )


def _qwen3(width: int, layers: int, heads: int, kv: int, ffn: int, **more: Any) -> DecoderConfig:
    """Qwen3 inside InternVL3.5: norms of query and key heads of 128, no biases, 40,960 positions."""
    fields: dict[str, Any] = {
        "qk_norm": True,
        "qkv_bias": False,
        "head_dim": 128,
        "rope_scaling": "none",
        "max_positions": 40960,
    }
    return _qwen(width, layers, heads, kv, ffn, 151936, **(fields | more))


def _internlm2(
    width: int, layers: int, heads: int, kv: int, ffn: int, vocab: int = 92553, **more: Any
) -> DecoderConfig:
    fields: dict[str, Any] = {"rope_scaling": "dynamic", "head_dim": width // heads} | more
    return DecoderConfig(
        hidden_size=width, ffn_size=ffn, layers=layers, heads=heads, kv_heads=kv, vocab_size=vocab, **fields
    )


_QWEN_05B, _QWEN_32B = (896, 24, 14, 2, 4864), (5120, 64, 40, 8, 27648)
_QWEN_72B, _LM_1_8B, _LM_7B, _LM_20B = (
    (8192, 80, 64, 8, 29568),
    (2048, 24, 16, 8, 8192),
    (4096, 32, 32, 8, 14336),
    (6144, 48, 48, 8, 16384),
)
_PHI3 = DecoderConfig(
    hidden_size=3072,
    ffn_size=8192,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=96,
    vocab_size=32020,
    rope_theta=10_000.0,
    rope_scaling="longrope",
    rope_original_positions=4096,
    rope_short=(1.0,) * 48,
    rope_long=(1.0,) * 48,
    max_positions=131072,
)
_YI_34B = DecoderConfig(
    hidden_size=7168,
    ffn_size=20480,
    layers=60,
    heads=56,
    kv_heads=8,
    head_dim=128,
    vocab_size=64000 + 9,
    rope_theta=5_000_000.0,
    max_positions=4096,
)
_LLAMA3_70B = DecoderConfig(
    hidden_size=8192,
    ffn_size=28672,
    layers=80,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocab_size=128256 + 9,
    rope_theta=500_000.0,
    max_positions=8192,
)
_MIXTURE = {"moe_size": 128, "moe_active": 8, "moe_normed": True}
MONO_INTERNVL_2B = MonoInternVLConfig(vision=_TILE, decoder=_internlm2(*_LM_1_8B, visual_ffn=True))
"""OpenGVLab/Mono-InternVL-2B."""
XCOMPOSER_7B = XComposerConfig(
    decoder=DecoderConfig(
        hidden_size=4096,
        ffn_size=11008,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        vocab_size=103170,
        rope_theta=10_000.0,
        max_positions=2048,
        qkv_bias=True,
        out_bias=True,
    )
)
"""internlm/internlm-xcomposer-vl-7b: EVA ViT-g, 64 queries, InternLM-7B, adapters of rank 256."""

_APACHE = "MIT; language model: Apache-2.0"
_INTERNLM = "MIT; language model: Apache-2.0, weights by InternLM's own terms"
_QWEN = "MIT; language model: Qwen licence"
_GUESS = "vocabulary rows taken as those of the language model and nine added tokens"
_INTERNLM2_CHAT, _CHAT = "internlm2-chat", "internvl2_5"


def _internvl(
    repository: str,
    vision: InternViTConfig,
    decoder: DecoderConfig,
    language_model: str,
    licence: str,
    template: str = _CHAT,
    published: Sequence[str] = (),
    note: str = "",
) -> Release:
    """``published``: vision, projector, language, total, as printed."""
    return Release(
        name=repository.lower().replace("_", "."),
        repository=f"OpenGVLab/{repository}",
        model=InternVLConfig(vision=vision, decoder=decoder),
        language_model=language_model,
        template=template,
        licence=licence,
        published=dict(zip(("vision", "projector", "language", "total"), published, strict=False)),
        note=note,
    )


def _xcomposer2(
    repository: str, tile: int, shape: tuple[int, int, int, int, int], views: Literal["hd", "square"], **more: Any
) -> Release:
    """XComposer2's line: CLIP ViT-L/14 with tiles of ``tile`` px, InternLM2 with partial LoRA of rank 256."""
    fields: dict[str, Any] = {"rope_scaling": "none", "partial_rank": 256} | more
    small = shape is _LM_1_8B
    return Release(
        name=repository.lower().replace("_", "."),
        repository=f"internlm/{repository}",
        model=XComposer2Config(
            vision=ClipViTConfig(
                patches=PatchConfig(width=1024, tile=tile, downsample=2 if views == "hd" else 1, bias=False)
            ),
            decoder=_internlm2(*shape, 92544, **fields),
            views=views,
        ),
        language_model="internlm2-chat-1_8b" if small else "internlm2-7b",
        template="ixc2",
        licence="Apache-2.0; weights by InternLM's own terms",
        note="no counts are printed with two digits; partial LoRA included",
    )


_ALL = (
    Release(
        name="mono-internvl-2b",
        repository="OpenGVLab/Mono-InternVL-2B",
        model=MONO_INTERNVL_2B,
        language_model="internlm2-chat-1_8b",
        template="internlm2-chat",
        licence=_INTERNLM,
        published={"total": "3.11 B"},
        note="bfloat16 only: float16 overflows",
    ),
    *(
        Release(
            name=name,
            repository=f"internlm/internlm-{name}",
            model=replace(XCOMPOSER_7B, decoder=replace(XCOMPOSER_7B.decoder, vocab_size=rows)),
            language_model="internlm-chat-7b",
            template="ixc1",
            licence="Apache-2.0; weights by InternLM's own terms",
            note=note,
        )
        for name, rows, note in (
            (
                "xcomposer-vl-7b",
                103170,
                "comprehension; weights of mixed dtypes, taken as bfloat16 unless a dtype is given",
            ),
            ("xcomposer-7b", 103168, "composition and chat; its tokenizer names two tokens that have no row"),
        )
    ),
    _xcomposer2("internlm-xcomposer2-4khd-7b", 336, _LM_7B, "hd"),
    _xcomposer2("internlm-xcomposer2-7b", 224, _LM_7B, "square", rope_scaling="dynamic", rope_factor=1.0),
    _xcomposer2("internlm-xcomposer2-vl-7b", 490, _LM_7B, "square", rope_scaling="dynamic", rope_factor=1.0),
    _xcomposer2("internlm-xcomposer2-vl-1_8b", 490, _LM_1_8B, "square", rope_scaling="dynamic"),
    _xcomposer2("internlm-xcomposer2d5-7b", 560, _LM_7B, "hd"),
    _internvl(
        "InternVL2-1B",
        VIT_300M,
        _qwen(*_QWEN_05B, 151655, rope_scaling="none"),
        "Qwen2-0.5B-Instruct",
        _APACHE,
        "Hermes-2",
    ),
    _internvl("InternVL2-2B", VIT_300M, _internlm2(*_LM_1_8B), "internlm2-chat-1_8b", _INTERNLM, _INTERNLM2_CHAT),
    _internvl(
        "InternVL2-4B",
        VIT_300M,
        _PHI3,
        "Phi-3-mini-128k-instruct",
        "MIT",
        "phi3-chat",
        note="the 96 divisors of longrope are not known here (ones stand for them); config.json has them",
    ),
    _internvl("InternVL2-8B", VIT_300M, _internlm2(*_LM_7B), "internlm2_5-7b-chat", _INTERNLM, _INTERNLM2_CHAT),
    _internvl("InternVL2-26B", VIT_6B, _internlm2(*_LM_20B), "internlm2-chat-20b", _INTERNLM, _INTERNLM2_CHAT),
    _internvl("InternVL2-40B", VIT_6B, _YI_34B, "Nous-Hermes-2-Yi-34B", _APACHE, "Hermes-2", note=_GUESS),
    _internvl(
        "InternVL2-Llama3-76B",
        VIT_6B,
        _LLAMA3_70B,
        "Hermes-2-Theta-Llama-3-70B",
        "MIT; language model: Llama 3 licence",
        _INTERNLM2_CHAT,
        note=_GUESS,
    ),
    _internvl("InternVL2_5-1B", VIT_300M, _qwen(*_QWEN_05B), "Qwen2.5-0.5B-Instruct", _APACHE),
    _internvl("InternVL2_5-2B", VIT_300M, _internlm2(*_LM_1_8B), "internlm2_5-1_8b-chat", _INTERNLM),
    _internvl(
        "InternVL2_5-4B",
        VIT_300M,
        _qwen(2048, 36, 16, 2, 11008),
        "Qwen2.5-3B-Instruct",
        "MIT; language model: Qwen research licence, not for commerce",
    ),
    _internvl("InternVL2_5-8B", VIT_300M, _internlm2(*_LM_7B), "internlm2_5-7b-chat", _INTERNLM),
    _internvl("InternVL2_5-26B", VIT_6B, _internlm2(*_LM_20B), "internlm2_5-20b-chat", _INTERNLM),
    _internvl("InternVL2_5-38B", VIT_6B, _qwen(*_QWEN_32B), "Qwen2.5-32B-Instruct", _APACHE),
    _internvl("InternVL2_5-78B", VIT_6B, _qwen(*_QWEN_72B), "Qwen2.5-72B-Instruct", _QWEN),
    _internvl(
        "InternVL3-1B",
        VIT_300M,
        _qwen(*_QWEN_05B),
        "Qwen2.5-0.5B",
        _APACHE,
        published=("304.01 M", "4.48 M", "629.70 M", "938.19 M"),
    ),
    _internvl(
        "InternVL3-2B",
        VIT_300M,
        _qwen(1536, 28, 12, 2, 8960),
        "Qwen2.5-1.5B",
        _APACHE,
        published=("304.01 M", "8.66 M", "1.78 B", "2.09 B"),
    ),
    _internvl(
        "InternVL3-8B",
        VIT_300M,
        _qwen(3584, 28, 28, 4, 18944),
        "Qwen2.5-7B",
        _APACHE,
        published=("304.01 M", "27.54 M", "7.61 B", "7.94 B"),
    ),
    _internvl(
        "InternVL3-9B",
        VIT_300M,
        _internlm2(4096, 48, 32, 2, 10240, 128142, rope_theta=50_000_000.0),
        "internlm3-8b-instruct",
        _APACHE,
        published=("304.01 M", "33.57 M", "8.80 B", "9.14 B"),
        note="128,142 or 128,521 vocabulary rows (both give the printed counts); config.json decides",
    ),
    _internvl(
        "InternVL3-14B",
        VIT_300M,
        _qwen(5120, 48, 40, 8, 13824),
        "Qwen2.5-14B",
        _APACHE,
        published=("304.01 M", "47.20 M", "14.77 B", "15.12 B"),
    ),
    _internvl(
        "InternVL3-38B",
        VIT_6B,
        _qwen(*_QWEN_32B),
        "Qwen2.5-32B",
        _APACHE,
        published=("5.54 B", "91.79 M", "32.76 B", "38.39 B"),
    ),
    _internvl(
        "InternVL3-78B",
        VIT_6B,
        _qwen(*_QWEN_72B),
        "Qwen2.5-72B",
        _QWEN,
        published=("5.54 B", "172.01 M", "72.70 B", "78.41 B"),
    ),
    _internvl("InternVL3_5-1B", VIT_300M, _qwen3(1024, 28, 16, 8, 3072), "Qwen3-0.6B", _APACHE),
    _internvl("InternVL3_5-2B", VIT_300M, _qwen3(2048, 28, 16, 8, 6144), "Qwen3-1.7B", _APACHE),
    _internvl("InternVL3_5-4B", VIT_300M, _qwen3(2560, 36, 32, 8, 9728), "Qwen3-4B", _APACHE),
    _internvl("InternVL3_5-8B", VIT_300M, _qwen3(4096, 36, 32, 8, 12288), "Qwen3-8B", _APACHE),
    _internvl("InternVL3_5-14B", VIT_300M, _qwen3(5120, 40, 40, 8, 17408), "Qwen3-14B", _APACHE),
    _internvl("InternVL3_5-38B", VIT_6B, _qwen3(5120, 64, 64, 8, 25600), "Qwen3-32B", _APACHE),
    _internvl("InternVL3_5-30B-A3B", VIT_300M, _qwen3(2048, 48, 32, 4, 768, **_MIXTURE), "Qwen3-30B-A3B", _APACHE),
    _internvl("InternVL3_5-241B-A28B", VIT_6B, _qwen3(4096, 94, 64, 4, 1536, **_MIXTURE), "Qwen3-235B-A22B", _APACHE),
)
RELEASES: Mapping[str, Release] = {release.name: release for release in _ALL}
"""Every release by name. InternVL3.5's model on gpt-oss-20B is missing: its attention sinks are not computed here."""
_FORMS = (
    "-hf",
    "-instruct",
    "-pretrained",
    "-mpo",
    "-chat",
    "-s1-1",
    "-s1-2",
    "-s1-3",
)  # of one release on the hub, alike in shape


def find_release(name: str) -> Release | None:
    """The release of a name as commands or the hub spell it, in any case: ``OpenGVLab/InternVL3-8B-hf`` is ``internvl3-8b``."""
    key = name.lower()
    for form in ("", *_FORMS):  # in this order: InternVL2_5-8B-MPO-hf is the native form of another stage
        key = key.removesuffix(form)
        for release in _ALL:
            if key in (release.name, release.repository.lower(), release.repository.lower().split("/")[-1]):
                return release
    return None
