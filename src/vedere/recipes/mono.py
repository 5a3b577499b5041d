"""EViP, the staged pre-training of Mono-InternVL (arXiv 2410.08202, sec. 3.3 and table 1), at two scales.

Delta tuning: the language model is frozen while visual parameters learn noisy labels (S1.1 concept), then clean captions
(S1.2 semantic), then tasks (S1.3 alignment, attention open), then everything follows instructions (S2). From the paper: order,
what learns, sample counts, token limits per picture (1280, 1792, 3328, 6400 tokens = 4, 6, 12, 24 tiles plus thumbnail). Not
published: peak rates, batch sizes and warm-up; ours are marked. The fine-tune rate 4e-5, decay 0.01, warm-up 0.03 and
cosine of S2 are the released fine-tuning script's.

The language model's vocabulary gains nine tokens (`vedere.train.vocabulary`). S1.1 to S1.3 freeze every text parameter but
attention, embedding and head included, as the released code does: the new rows of ``<img>`` and ``</img>`` learn in S2 only.

The small scale differs in numbers only, except that the shared attention stays frozen for good: S1.3 and S2 open visual
attention experts instead (Mono-InternVL-1.5, 2507.12566), so the language model's own answers never change.
"""

from __future__ import annotations

from dataclasses import replace

from vedere.train.run import ModelSource, RunConfig
from vedere.train.stages import EVERYTHING, TEXT_ATTENTION, VISUAL_ATTENTION, VISUAL_PARTS, OptimConfig, StageConfig

MEAN_TOKENS = 1024  # our estimate of a pre-training sample's length, to turn the paper's samples into steps
BATCH_TOKENS = 4_194_304  # ours


def _steps(samples: float) -> int:
    return round(samples * MEAN_TOKENS / BATCH_TOKENS)


def mono() -> RunConfig:
    """Mono-InternVL-2B on internlm2-chat-1.8b: 922 M, 258 M, 143 M and 5 M samples."""
    pretraining = OptimConfig(lr=1e-4, schedule="constant", warmup=100, weight_decay=0.01)  # ours
    base = StageConfig(
        name="S1.1-concept",
        data="concept",
        trains=VISUAL_PARTS,
        steps=_steps(922e6),
        tokens_per_step=BATCH_TOKENS,
        pack_tokens=16384,
        pack_tiles=48,
        max_tiles=4,
        optim=pretraining,
    )
    return RunConfig(
        recipe="mono",
        data="data/mono",
        held_out="heldout/meta.json",
        model=ModelSource(
            language_model="internlm2-chat-1_8b",
            template="internlm2-chat",
            patch_width=1024,
            tile=448,
            visual_attention=False,
        ),
        stages=(
            base,
            replace(base, name="S1.2-semantic", data="semantic", steps=_steps(258e6), max_tiles=6),
            replace(
                base,
                name="S1.3-alignment",
                data="alignment",
                trains=VISUAL_PARTS + TEXT_ATTENTION,
                steps=_steps(143e6),
                max_tiles=12,
                optim=replace(pretraining, lr=5e-5),
            ),
            replace(
                base,
                name="S2-instruction",
                data="instruction",
                trains=EVERYTHING,
                steps=_steps(5e6),
                max_tiles=24,
                averaging="square",
                optim=OptimConfig(lr=4e-5, schedule="cosine", warmup=0.03, weight_decay=0.01),
            ),
        ),
        precision="bf16",
        checkpoint_layers=True,
        workers=8,
        save_every=500,
        eval_every=500,
    )


def mono_mini() -> RunConfig:
    """vedere-mini: the same stages on SmolLM2-135M, one tile of 160 px = 25 tokens a picture, behind a pretrained stem.

    The stem is a help beyond the paper (`vedere.models.stem`), what it reads and names another; ``--model.stem
    --model.no-transcript --model.no-names`` trains the purely monolithic form. Some 100 minutes on two CPU cores at 850 tokens
    a second; the shipped weights had fewer steps.
    """
    learning = OptimConfig(
        lr=4e-4,
        lr_scale=(("vision.*", 3.0), ("projector.*", 3.0)),
        schedule="constant",
        warmup=20,
        weight_decay=0.01,
    )
    first = StageConfig(
        name="S1.1-concept",
        data="concept",
        trains=VISUAL_PARTS,
        steps=350,
        tokens_per_step=2000,
        pack_tokens=2048,
        pack_tiles=128,
        max_tiles=1,
        frames=(4, 8),  # clips of the corpus have 8 to 16 frames, and an answer sees 8 of them
        optim=learning,
    )
    visual = VISUAL_PARTS + VISUAL_ATTENTION
    return RunConfig(
        recipe="mono-mini",
        data="data/mini",
        held_out="heldout/meta.json",
        model=ModelSource(tile=160, patch=16, patch_width=384, stem=("lite0", "reader"), transcript=True, names=True),
        stages=(
            first,
            replace(first, name="S1.2-semantic", data="semantic", steps=300),
            replace(first, name="S1.3-alignment", data="alignment", steps=150, trains=visual),
            replace(
                first,
                name="S2-instruction",
                data="instruction",
                trains=visual,
                steps=1500,
                optim=replace(learning, schedule="cosine", final=0.05),
            ),
        ),
        save_every=50,
        eval_every=250,
        eval_samples=64,
    )


def mono_mini_hd() -> RunConfig:
    """vedere-mini at mixed resolutions: documents and charts high, the rest low.

    4KHD's recipe (2404.06512, sec. 3.3) with the tiling of vedere-mini: pictures whose text is small get up to 4 tiles and a
    thumbnail (125 tokens), all others one tile (25). One more stage on top of the finished stages, with a fifth of the steps.
    """
    whole = mono_mini()
    last = whole.stages[-1]
    mixed = replace(
        last,
        name="S2-mixed-resolution",
        steps=last.steps // 5,
        limits=(("documents*", 4), ("charts*", 4)),
        optim=replace(last.optim, lr=last.optim.lr / 2),
    )
    return replace(whole, recipe="mono-mini-hd", stages=(*whole.stages, mixed))
