"""What each choice behind vedere-mini brings: variants of its recipe, trained alike and compared on held-out data.

    python benchmarks/mini_experiments.py stages --data data/mini --minutes 120 --steps 400
    python benchmarks/mini_experiments.py samples --data data/mini --minutes 60 --steps 400

``text``        delta tuning, the paper's own stages (shared attention opens in S1.3, everything in S2) and full tuning (the
                ablation of Mono-InternVL, arXiv 2410.08202): perplexity of text, greedy answers to five questions without
                pictures, held-out skills; beside the bare language model
``stages``      all four stages, and each of S1.1, S1.2, S1.3 left out, at equal total steps
``resolution``  sides of the tile (96 to 224 px: 9 to 49 tokens), at equal steps and nearly equal samples
``help``        parts of the stem, the transcript and the names on and off
``samples``     skills over samples seen, with a fitted extrapolation: the last stage alone from fresh visual parts, measured
                ten times on its way at a constant rate (a falling one would flatter the end); with ``--runs``, from the
                metrics of given runs one after another; beside it what each of the shipped weights
                reached (``benchmarks/results/mini_weights.json``), which shows how good the extrapolation is

A variant lives in ``--out``/EXPERIMENT/VARIANT and resumes there, so a command that ran out
of ``--minutes`` is simply given again; a finished variant is not trained again, nor one that another experiment under the same
``--out`` has finished with the same config. Results so far are stored each time in
``benchmarks/results/mini_EXPERIMENT.json`` and drawn as ``docs/models/mini-EXPERIMENT.png``; only finished ones are compared,
as only they have equal steps. A checkpoint takes 1.3 GB (full tuning: 3 GB) and stays until its folder is deleted.

The text of ``text`` is what this repository carries: LICENSE and the pages of docs. Their windows of 256 tokens are read, and
the second half of each is predicted: exp of the mean loss.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from curve_fits import fit, samples_for
from experiment_figures import draw_resolution, draw_samples, draw_variants
from harness import store

from vedere import config as configs
from vedere.errors import ConfigError
from vedere.infer.loading import Loaded
from vedere.infer.prompts import PromptMaker
from vedere.infer.session import Session
from vedere.models.mono_internvl import MonoInternVL
from vedere.plan import TilingPolicy
from vedere.recipes import get_recipe
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer
from vedere.train.export import load_run
from vedere.train.loop import Interrupted, Trainer
from vedere.train.monitor import read_metrics
from vedere.train.run import RunConfig, build_model
from vedere.train.stages import TEXT_ATTENTION, VISUAL_PARTS, StageConfig
from vedere.train.state import checkpoint_steps

ROOT = Path(__file__).parents[1]
SHIPPED = Path(__file__).parent / "results" / "mini_weights.json"
# Everything but the stem, which stays as it is in both: the difference is the language model.
FULL = ("vision.*", "projector.*", "decoder.*")
WINDOW = 256
WEEK = 7.0 * 24 * 60  # minutes
TEXT_BESIDE_PICTURE = 45  # tokens of a sample beside those of its picture, in the corpus' mean
SIDES = (96, 128, 160, 224)
# What the card asks of the kinds whose training changed in nothing but its length between the weights shipped.
GOALS = {"scenes": 0.8, "pairs": 0.8, "clips": 0.6, "easy_vqa": 0.85}
QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is 7 plus 5?",
    "Name three animals that can fly.",
    "Explain in one sentence why the sky is blue.",
)
HELP: Mapping[str, tuple[tuple[str, ...], bool, bool]] = {  # parts of the stem, transcript, names
    "nothing": ((), False, False),
    "lite0": (("lite0",), False, False),
    "reader": (("reader",), False, False),
    "lite0 and reader": (("lite0", "reader"), False, False),
    "lite0 and names": (("lite0",), False, True),
    "reader and transcript": (("reader",), True, False),
    "lite0, reader, transcript": (("lite0", "reader"), True, False),
    "lite0, reader, transcript, names": (("lite0", "reader"), True, True),
}
Variants = dict[str, RunConfig]


def at_steps(config: RunConfig, steps: int) -> RunConfig:
    """The config with its stages shortened or lengthened in proportion to ``steps`` in all, at least one each."""
    if steps < len(config.stages):
        raise ConfigError(f"--steps {steps} for {len(config.stages)} stages; expected at least one step each")
    total = sum(stage.steps for stage in config.stages)
    free = steps - len(config.stages)
    ends = [round(free * sum(s.steps for s in config.stages[: n + 1]) / total) for n in range(len(config.stages))]
    lengths = [1 + end - before for before, end in itertools.pairwise([0, *ends])]
    stages = tuple(shortened(stage, n) for stage, n in zip(config.stages, lengths, strict=True))
    return replace(config, stages=stages)


def shortened(stage: StageConfig, steps: int) -> StageConfig:
    """The stage with other steps and a warm-up that is the same share of them, at least one step."""
    warmup = stage.optim.warmup
    if warmup >= 1:
        warmup = float(max(1, round(warmup * steps / stage.steps)))
    return replace(stage, steps=steps, optim=replace(stage.optim, warmup=warmup))


def text_variants(base: RunConfig, steps: int) -> Variants:
    """Visual parts alone; the paper's stages, at one rate for all and with a gentler one for text; everything throughout."""
    delta = at_steps(base, steps)
    return {
        "delta": delta,
        "paper": paper_stages(delta),
        "paper, text gently": paper_stages(delta, text_rate=0.1),
        "full": replace(delta, stages=tuple(replace(stage, trains=FULL) for stage in delta.stages)),
    }


def paper_stages(config: RunConfig, text_rate: float = 1.0) -> RunConfig:
    """Shared attention, opened by the third stage; everything in the fourth (Mono-InternVL, sec. 3.3).

    Args:
        config: Four stages.
        text_rate: Learning rate of the language model's own weights, as a share of the visual experts'.
    """
    opened = (VISUAL_PARTS, VISUAL_PARTS, VISUAL_PARTS + TEXT_ATTENTION, FULL)
    scale = () if text_rate == 1.0 else (("decoder.layers.*.ffn.visual.*", 1.0), ("decoder.*", text_rate))
    stages = tuple(
        replace(stage, trains=trains, optim=replace(stage.optim, lr_scale=(*stage.optim.lr_scale, *scale)))
        for stage, trains in zip(config.stages, opened, strict=True)
    )
    return replace(config, model=replace(config.model, visual_attention=False), stages=stages)


def stage_variants(base: RunConfig, steps: int) -> Variants:
    """All stages, and all but one of the first three."""
    found = {"all stages": at_steps(base, steps)}
    for left_out in base.stages[:-1]:
        rest = tuple(stage for stage in base.stages if stage is not left_out)
        found[f"without {left_out.name.split('-')[0]}"] = at_steps(replace(base, stages=rest), steps)
    return found


def resolution_variants(base: RunConfig, steps: int, sides: Sequence[int] = SIDES) -> Variants:
    """Tiles of several sides; steps and packs grow with the tokens of a picture, so that samples stay nearly equal."""
    usual = picture_tokens(base)
    found = {}
    for side in sides:
        config = at_steps(replace(base, model=replace(base.model, tile=side)), steps)
        ratio = (TEXT_BESIDE_PICTURE + picture_tokens(config)) / (TEXT_BESIDE_PICTURE + usual)
        stages = tuple(
            replace(s, tokens_per_step=round(ratio * s.tokens_per_step), pack_tokens=round(ratio * s.pack_tokens))
            for s in config.stages
        )
        found[f"{side} px"] = replace(config, stages=stages)
    return found


def picture_tokens(config: RunConfig) -> int:
    """Visual tokens of a tile."""
    return TilingPolicy(tile=config.model.tile, patch=config.model.patch).tokens_per_tile


def help_variants(base: RunConfig, steps: int) -> Variants:
    """The stem's parts and the transcript on and off."""
    config = at_steps(base, steps)
    return {
        name: replace(config, model=replace(config.model, stem=stem, transcript=transcript, names=names))
        for name, (stem, transcript, names) in HELP.items()
    }


def samples_variants(base: RunConfig, steps: int) -> Variants:
    """The last stage alone at a constant rate, measured ten times."""
    last = base.stages[-1]
    last = shortened(replace(last, optim=replace(last.optim, schedule="constant", final=0.0)), steps)
    return {"curve": replace(base, stages=(last,), eval_every=max(1, steps // 10))}


def train_all(variants: Variants, place: Path, minutes: float, say: Callable[[str], None]) -> dict[str, Path]:
    """Trains what is not finished, one after the other, until the time is over.

    Returns:
        Folders of the finished variants.

    Raises:
        ConfigError: a folder holds a run with another config.
    """
    deadline = time.monotonic() + 60 * minutes
    finished: dict[str, Path] = {}
    over = False
    for name, config in variants.items():
        folder = place / "".join(c if c.isalnum() else "-" for c in name)
        same = trained_elsewhere(place, config)
        if is_finished(folder, config) or same:
            finished[name] = same or folder
            continue
        left = (deadline - time.monotonic()) / 60
        if over or left <= 0:
            say(f"{name}: no time left; give the command again")
            continue
        resume = (folder / "metrics.jsonl").is_file()
        trainer = Trainer(replace(config, minutes=left), folder, resume=resume, say=lambda t, n=name: say(f"{n}: {t}"))
        try:
            trainer.train()
            finished[name] = folder
        except Interrupted as stopped:
            say(f"{name}: {stopped}")
            over = True  # the time is over, or somebody pressed Ctrl-C
    return finished


def trained_elsewhere(place: Path, config: RunConfig) -> Path | None:
    """The finished run of another experiment under the same ``--out`` whose config is the same, if there is one."""
    for path in sorted(place.parent.glob("*/*/config.json")):
        if path.parent.parent != place and plain(configs.load(RunConfig, path)) == plain(config):
            return path.parent if is_finished(path.parent, config) else None
    return None


def plain(config: RunConfig) -> RunConfig:
    """The config without its time limit, which changes nothing that is learnt."""
    return replace(config, minutes=0.0)


def is_finished(folder: Path, config: RunConfig) -> bool:
    """Whether the run in a folder has done all its steps."""
    if not (folder / "config.json").is_file():
        return False
    if plain(configs.load(RunConfig, folder / "config.json")) != plain(config):
        raise ConfigError(
            f"{folder} holds a run with other settings; give it the same --data, --steps and --samples, or another --out"
        )
    steps = checkpoint_steps(folder / "checkpoints") if (folder / "checkpoints").is_dir() else []
    return bool(steps) and steps[-1] == sum(stage.steps for stage in config.stages)


def seen(folder: Path) -> dict[str, Any]:
    """Steps, samples, tokens and the last held-out figures of a run."""
    lines = read_metrics(folder / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    held_out = next(line["held_out"] for line in reversed(lines) if "held_out" in line)
    return {
        "steps": len(steps),
        "samples": sum(line["samples"] for line in steps),
        "tokens": steps[-1]["tokens"],
        "seconds": round(sum(line["seconds"] for line in steps), 1),
        "held_out": held_out,
        "mean_exact": sum(kind["exact"] for kind in held_out.values()) / len(held_out),
        "mean_loss": sum(kind["loss"] for kind in held_out.values()) / len(held_out),
    }


def open_text(root: Path = ROOT) -> str:
    """The text that perplexity is measured on."""
    pages = [root / "LICENSE", *sorted((root / "docs").glob("*.md"))]
    return "\n\n".join(page.read_text("utf-8") for page in pages)


@torch.inference_mode()
def perplexity(model: MonoInternVL, tokenizer: Tokenizer, text: str, windows: int) -> float:
    """Of the second halves of the first ``windows`` windows of a text, each given its first half."""
    ids = torch.tensor(tokenizer.encode(text)[: WINDOW * windows])
    parts = [part for part in ids.split(WINDOW) if len(part) > WINDOW // 2 + 1]
    total, count = 0.0, 0
    for part in parts:
        rows = torch.arange(WINDOW // 2 - 1, len(part) - 1)
        hidden = model(part, torch.arange(len(part)), [0, len(part)], rows_M=rows)
        loss = torch.nn.functional.cross_entropy(model.decoder.logits(hidden), part[rows + 1], reduction="sum")
        total, count = total + float(loss), count + len(rows)
    return math.exp(total / count)


def text_ability(model: MonoInternVL, tokenizer: Tokenizer, template: str, text: str, windows: int) -> dict[str, Any]:
    """Perplexity and greedy answers without pictures."""
    prompts = PromptMaker(
        tokenizer=tokenizer,
        template=get_template(template),
        policy=None,
        max_positions=model.decoder.config.max_positions,
    )
    session = Session(Loaded(name="experiment", model=model.eval(), prompts=prompts, extras={}))
    return {
        "perplexity": perplexity(model, tokenizer, text, windows),
        "answers": {q: session.chat(q, max_new_tokens=48).text for q in QUESTIONS},
    }


def measure_text(finished: dict[str, Path], base: RunConfig, windows: int) -> dict[str, Any]:
    """Text ability of the bare language model and of the finished variants, and which text weights have changed."""
    text = open_text()
    model, words = build_model(base.model, base.seed, lambda _: None)
    bare = {n: p.clone() for n, p in model.state_dict().items() if n.startswith("decoder.") and ".visual." not in n}
    found = {"bare": text_ability(model, words.tokenizer, base.model.template, text, windows)}
    for name, folder in finished.items():
        run = load_run(folder, lambda _: None)
        state = run.model.state_dict()
        changed = [tensor for tensor, before in bare.items() if not torch.equal(state[tensor], before)]
        found[name] = text_ability(run.model, run.tokenizer, base.model.template, text, windows)
        found[name] |= {"changed_text_tensors": len(changed), "bit_identical": not changed}
    return {"text": found, "text_from": "LICENSE and docs/*.md", "windows": windows, "window": WINDOW}


def samples_seen(runs: Sequence[Path]) -> dict[str, dict[str, list[float]]]:
    """Held-out figures of runs one after another, by kind: samples and tokens seen until then, share, loss, questions."""
    found: dict[str, dict[str, list[float]]] = {}
    samples = tokens_before = 0
    for folder in runs:
        path = folder if folder.is_file() else folder / "metrics.jsonl"
        lines = read_metrics(path)
        if not lines:
            raise ConfigError(f"{path} holds no metrics; give folders of runs, or metrics.jsonl files, oldest first")
        tokens = 0
        for line in lines:
            samples += line.get("samples", 0)
            tokens = line["tokens"]
            for kind, facts in line.get("held_out", {}).items():
                row = found.setdefault(kind, {key: [] for key in ("samples", "tokens", "exact", "loss", "questions")})
                values = (samples, tokens_before + tokens, facts["exact"], facts["loss"], facts["samples"])
                for key, value in zip(row, values, strict=True):
                    row[key].append(value)
        tokens_before += tokens
    if not found:
        raise ConfigError(
            f"no held-out figures in {', '.join(map(str, runs))}; the runs need held_out data and a finished stage"
        )
    return found


def fit_samples(points: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Points with the fits of share and loss, by kind."""
    return {
        kind: {
            "points": row,
            "exact": fit(row["samples"], row["exact"], [int(n) for n in row["questions"]]),
            "loss": fit(row["samples"], row["loss"]),
        }
        for kind, row in points.items()
    }


def experiment(options: argparse.Namespace, base: RunConfig) -> dict[str, Any]:
    """Trains the variants of one experiment as far as there is time, compares the finished ones, stores and draws."""
    name = options.experiment
    base = replace(base, data=str(options.data), eval_samples=options.samples, eval_every=0, keep=1, minutes=0.0)
    if options.no_names:
        base = replace(base, model=replace(base.model, names=False))
    makers: dict[str, Callable[[], Variants]] = {
        "text": lambda: text_variants(base, options.steps),
        "stages": lambda: stage_variants(base, options.steps),
        "resolution": lambda: resolution_variants(base, options.steps, options.sides),
        "help": lambda: help_variants(base, options.steps),
        "samples": lambda: samples_variants(base, options.steps),
    }
    variants = chosen(makers[name](), options.variants)
    finished = train_all(variants, options.out / name, options.minutes, lambda text: print(text, flush=True))
    result: dict[str, Any] = {
        "experiment": name,
        "steps": options.steps,
        "unfinished": [variant for variant in variants if variant not in finished],
        "variants": {
            variant: {"picture_tokens": picture_tokens(variants[variant]), **seen(folder)}
            for variant, folder in finished.items()
        },
    }
    if name == "samples":
        return result | (samples_result(list(finished.values())) if finished else {})
    if name == "text":
        result |= measure_text(finished, base, options.windows)
    if finished and name == "resolution":
        draw_resolution(result["variants"])
    elif finished:
        draw_variants(name, result["variants"], result.get("text", {}))
    return result


def samples_result(runs: Sequence[Path]) -> dict[str, Any]:
    """Points and fits by kind, drawn beside what the shipped weights reached."""
    kinds = fit_samples(samples_seen(runs))
    shipped = json.loads(SHIPPED.read_text("utf-8"))["weights"]
    draw_samples(kinds, shipped)
    columns = [[weights[key] for weights in shipped] for key in ("samples", "questions")]
    needed = {
        kind: samples_for(goal, columns[0], [weights["exact"][kind] for weights in shipped], columns[1])
        for kind, goal in GOALS.items()
    }
    return {"kinds": kinds, "shipped": shipped, "needed": needed}


def chosen(variants: Variants, names: Sequence[str] | None) -> Variants:
    """The variants of these names, all without names.

    Raises:
        ConfigError: a name that no variant has.
    """
    unknown = [name for name in names or () if name not in variants]
    if unknown:
        raise ConfigError(f"--variants {', '.join(unknown)}: no such variant; there are {', '.join(variants)}")
    return {name: config for name, config in variants.items() if not names or name in names}


def show(result: dict[str, Any]) -> None:
    """One line a variant."""
    for variant, facts in result["variants"].items():
        print(
            f"{variant:28} exact {facts['mean_exact']:6.1%}  loss {facts['mean_loss']:.3f}  {facts['steps']} steps, "
            f"{facts['samples']} samples, {facts['tokens']} tokens, {facts['seconds']:.0f} s"
        )
    for variant, facts in result.get("text", {}).items():
        kept = {True: ", text weights bit-identical", False: ", text weights changed"}.get(
            facts.get("bit_identical"), ""
        )
        print(f"{variant:28} perplexity {facts['perplexity']:.4f}{kept}")
    for kind, facts in result.get("kinds", {}).items():
        print(kind, json.dumps(facts["exact"].get("parameters", facts["exact"])))
    for kind, facts in result.get("needed", {}).items():
        median, low, high = (f"{n:,.0f}" if n else "never" for n in facts["samples"])
        print(
            f"{kind}: {facts['goal']:.0%} after {median} samples ({low} to {high}) by the line through the shipped weights"
        )
    if result["unfinished"]:
        print(f"not finished: {', '.join(result['unfinished'])}; give the command again")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="experiment", required=True)
    for name in ("text", "stages", "resolution", "help", "samples"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=name != "samples", help="a built corpus")
        command.add_argument(
            "--minutes", type=float, default=WEEK, help="of training, all variants together; a week by default"
        )
        command.add_argument("--steps", type=int, default=400, help="of each variant, all stages together")
        command.add_argument("--samples", type=int, default=100, help="held-out samples of each kind")
        command.add_argument("--out", type=Path, default=Path("runs/experiments"))
        command.add_argument("--variants", nargs="+", help="these alone; all without it")
        command.add_argument(
            "--no-names", action="store_true", help="without the namer, before which other effects pale"
        )
        if name == "text":
            command.add_argument("--windows", type=int, default=64, help="of 256 tokens that perplexity is measured on")
        if name == "resolution":
            command.add_argument("--sides", type=int, nargs="+", default=list(SIDES))
        if name == "samples":
            command.add_argument("--runs", type=Path, nargs="+", help="runs or metrics.jsonl files, oldest first")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, base: RunConfig | None = None) -> None:
    """Runs one experiment; ``base`` replaces the recipe of vedere-mini in tests."""
    options = parse(argv)
    if options.experiment == "samples" and options.runs:
        result = {
            "experiment": "samples",
            "variants": {},
            "unfinished": [],
            **samples_result(options.runs),
        }
    elif options.data is None:
        raise ConfigError("samples trains with --data, or reads finished runs with --runs; got neither")
    else:
        result = experiment(options, base or get_recipe("mono-mini"))
    show(result)
    store(f"mini_{options.experiment}", result)


if __name__ == "__main__":
    main()
