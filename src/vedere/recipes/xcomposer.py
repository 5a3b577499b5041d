"""Training of the XComposer line: XComposer (arXiv 2309.15112), XComposer2 (2401.16420), XComposer2-4KHD (2404.06512).

All of the line learn the next token of texts, nothing else. What differs is which part may move:

* **XComposer** (sec. 3.2, 3.3): sampler and language model learn in pre-training, the tower is frozen; later the sampler and
  LoRA of rank 256 on query, value and feed-forward of an otherwise frozen language model.
* **XComposer2** (sec. 3.2): pre-training leaves the language model alone; tower, projector and partial LoRA of rank 256, which
  only image tokens meet, learn for it. Fine-tuning opens everything.
* **4KHD** (sec. 3.3, 4): the same with pictures of many sizes. Pre-training at HD-25; fine-tuning shows documents at HD-55
  and every other picture at a size drawn between its own and HD-25. The tower's rate falls by 0.9 a layer from the last one
  down, the language model's is a fifth of the rest's.

Published are rates, decays, batches in samples, warm-up, the 3500 steps of 4KHD's fine-tuning and XComposer's 8000 steps.
Not published, and ours (marked below): steps of what the papers count in epochs of data that is not open, weight decay and
betas of the large stages (those of the released fine-tuning code), the limits of a pack, XComposer's fine-tuning rates.
XComposer2's own rates are taken from 4KHD's tables. Data sets are folders with a ``meta.json`` below ``data/``; 4KHD's
mix by task stands in `SOURCES`.
"""

from __future__ import annotations

from dataclasses import replace

from vedere.models.adapters import LoRA, PartialLoRA
from vedere.train.run import ModelSource, RunConfig
from vedere.train.stages import EVERYTHING, HD_VIEWS, LORA, PARTIAL_LORA, OptimConfig, StageConfig, layer_decay
from vedere.train.xcomposer2 import TowerSource

TOWER_LAYERS = 24
DOCUMENTS = ("infovqa*", "docvqa*")  # data sets of HD-OCR questions, shown at HD-55
SEEING = ("vision.*", "projector.*", *PARTIAL_LORA)  # what learns beside a frozen language model
LANGUAGE = (  # without adapters, whose tensors have other endings
    "decoder.embed.*",
    "decoder.head.*",
    "decoder.norm.*",
    "decoder.layers.*.weight",
    "decoder.layers.*.bias",
)
ADAPTERS = ("decoder.layers.*lora*",)
SOURCES = {
    "pretrain": {
        "alignment": "ShareGPT4V-PT, COCO, NoCaps, TextCaps, LAION-400M, SBU, CC3M",
        "knowledge": "concept data",
        "vision": "WanJuan, Flickr, MMC-Instruct, RCTW-17, CTW, LSVT, ReCTS, ArT",
    },
    "sft": {
        "caption": "ShareGPT4V, COCO, NoCaps",
        "general QA": "VQAv2, GQA, OK-VQA, VisDial, RD, VSR",
        "science": "AI2D, ScienceQA, TQA, IconQA",
        "chart": "DVQA, ChartQA, ChartQA-AUG",
        "math": "MathQA, Geometry3K, TabMWP, CLEVR-Math, Super-CLEVR",
        "knowledge": "A-OKVQA, KVQA, ViQuAE",
        "OCR": "TextVQA, OCR-VQA, ST-VQA",
        "HD-OCR": "InfoVQA, DocVQA",
        "conversation": "LLaVA-150k, LVIS-Instruct4V, ShareGPT en and zh, InternLM-Chat",
    },
}
"""4KHD's data by task (its tables of pre-training and fine-tuning data)."""

_FINE_TUNING = OptimConfig(lr=1e-5, warmup=0.01, weight_decay=0.1, beta2=0.95)  # of the released code
_PRETRAINING = replace(_FINE_TUNING, lr=2e-4, lr_scale=layer_decay(TOWER_LAYERS, 0.9))
_SUPERVISED = replace(
    _FINE_TUNING, lr=5e-5, lr_scale=(*layer_decay(TOWER_LAYERS, 0.9), (PARTIAL_LORA[0], 1.0), ("decoder.*", 0.2))
)


def _model(**changes: object) -> ModelSource:
    source = ModelSource(
        architecture="xcomposer2",
        language_model="internlm2-7b",
        template="ixc2",
        patch_width=1024,
        patch=14,
        tile=336,
        tower=TowerSource(folder="clip-vit-large-patch14-336", layers=TOWER_LAYERS, heads=16, ffn_size=4096),
        partial=PartialLoRA(rank=256, alpha=256.0, dropout=0.05),
    )
    return replace(source, **changes)  # type: ignore[arg-type]


def xcomposer2_4khd() -> RunConfig:
    """4KHD from InternLM2-7B and CLIP: pre-training at HD-25, fine-tuning with documents at HD-55."""
    pretraining = StageConfig(
        name="pretraining",
        data="pretrain",
        trains=(*SEEING, *HD_VIEWS),
        steps=20_000,  # ours; the paper: 2 epochs
        samples_per_step=4096,
        tokens_per_step=1,
        pack_tokens=16_384,  # the model's working length; the largest HD-55 picture has 8737 tokens
        pack_tiles=128,  # ours
        max_tiles=25,
        optim=_PRETRAINING,
    )
    supervised = replace(
        pretraining,
        name="sft",
        data="sft",
        trains=EVERYTHING,
        steps=3500,
        samples_per_step=2048,
        limits=tuple((name, 55) for name in DOCUMENTS),
        random_resolution=True,
        optim=_SUPERVISED,
    )
    return RunConfig(
        recipe="xcomposer2-4khd",
        data="data/xcomposer2-4khd",
        held_out="heldout/meta.json",
        model=_model(),
        stages=(pretraining, supervised),
        precision="bf16",
        checkpoint_layers=True,
        workers=8,
        save_every=250,
        eval_every=250,
    )


def xcomposer2_vl() -> RunConfig:
    """XComposer2-VL: one square of 490 px without merge, 1225 tokens; the same two stages."""
    whole = xcomposer2_4khd()
    pretraining, supervised = whole.stages
    square = {"pack_tokens": 4096, "pack_tiles": 3, "max_tiles": 1}  # the released working length
    tower = replace(whole.model.tower, square=True)
    return replace(
        whole,
        recipe="xcomposer2-vl",
        data="data/xcomposer2-vl",
        model=_model(tile=490, tower=tower),
        stages=(
            replace(pretraining, trains=SEEING, **square),  # type: ignore[arg-type]
            replace(supervised, limits=(), random_resolution=False, **square),  # type: ignore[arg-type]
        ),
    )


def xcomposer2_4khd_finetune() -> RunConfig:
    """Full fine-tuning of the released 4KHD as its published script does it: HD-16, 8 samples a step, rate 1e-5."""
    stage = StageConfig(
        name="finetune",
        data="finetune",
        trains=EVERYTHING,
        steps=1000,  # ours; the script: one epoch
        samples_per_step=8,
        tokens_per_step=1,
        pack_tokens=4096,
        pack_tiles=34,
        max_tiles=16,
        optim=_FINE_TUNING,
    )
    return RunConfig(
        recipe="xcomposer2-4khd-finetune",
        data="data/xcomposer2-4khd",
        model=_model(start="internlm-xcomposer2-4khd-7b", language_model=""),
        stages=(stage,),
        precision="bf16",
        checkpoint_layers=True,
        workers=8,
        save_every=100,
    )


def xcomposer2_4khd_lora() -> RunConfig:
    """LoRA fine-tuning of the released 4KHD as its published script does it: rank 64, alpha 64, dropout 0.05, rate 5e-5.

    The LoRA stands around the partial one and meets every token; tower, projector and partial LoRA are frozen.
    """
    whole = xcomposer2_4khd_finetune()
    targets = ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
    (stage,) = whole.stages
    return replace(
        whole,
        recipe="xcomposer2-4khd-lora",
        model=replace(whole.model, lora=LoRA(rank=64, alpha=64.0, dropout=0.05, targets=targets)),
        stages=(replace(stage, trains=LORA, optim=replace(_FINE_TUNING, lr=5e-5)),),
    )


def xcomposer() -> RunConfig:
    """XComposer from a folder with its tower and sampler: pre-training, multi-task, instructions."""
    pretraining = StageConfig(
        name="pretraining",
        data="pretrain",
        trains=("sampler.*", "projector.*", *LANGUAGE),
        steps=8000,
        tokens_per_step=15_700_000,
        pack_tokens=2048,
        pack_tiles=24,
        optim=OptimConfig(
            lr=2e-4, lr_scale=(("decoder.*", 0.2),), warmup=200, final=0.05, weight_decay=0.1, beta1=0.9, beta2=0.95
        ),
    )
    tuning = replace(
        pretraining,
        name="multitask",
        data="multitask",
        trains=("sampler.*", "projector.*", *ADAPTERS),
        steps=10_000,  # ours, as batch and rate
        tokens_per_step=1_000_000,
        optim=replace(_FINE_TUNING, lr=5e-5),  # the rate of the released code for LoRA
    )
    return RunConfig(
        recipe="xcomposer",
        data="data/xcomposer",
        model=ModelSource(
            architecture="xcomposer",
            start="internlm-xcomposer-vl-7b",
            template="ixc1",
            patch_width=1408,
            patch=14,
            tile=224,
        ),
        stages=(pretraining, tuning, replace(tuning, name="instruction", data="instruction", steps=2000)),
        precision="bf16",
        checkpoint_layers=True,
        workers=8,
        save_every=250,
    )


def xcomposer_finetune() -> RunConfig:
    """Full fine-tuning of the released XComposer as its published script does it: rate 1e-5, 32 samples a step.

    Tower and sampler learn as well, the flags around a picture never.
    """
    whole = xcomposer()
    stage = StageConfig(
        name="finetune",
        data="finetune",
        trains=("vision.*", "sampler.*", "projector.*", "decoder.*"),
        steps=1000,  # ours; the script: one epoch
        samples_per_step=32,  # 4 samples a batch, 8 batches a step
        tokens_per_step=1,
        pack_tokens=2048,
        pack_tiles=24,
        optim=_FINE_TUNING,
    )
    return replace(whole, recipe="xcomposer-finetune", stages=(stage,), save_every=100)


def xcomposer_lora() -> RunConfig:
    """LoRA fine-tuning of the released XComposer as its published script does it: rank 64, alpha 64, dropout 0.05, rate 5e-5.

    The script puts it around the release's own, which stays as it is; here that is merged into the weights first, the same sum.
    """
    whole = xcomposer_finetune()
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    (stage,) = whole.stages
    return replace(
        whole,
        recipe="xcomposer-lora",
        model=replace(whole.model, lora=LoRA(rank=64, alpha=64.0, dropout=0.05, targets=targets, naming="llama")),
        stages=(replace(stage, trains=LORA, optim=replace(_FINE_TUNING, lr=5e-5)),),
    )
