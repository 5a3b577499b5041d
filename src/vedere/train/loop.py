"""The training loop: stages in order, resumable at every step, loud when something is wrong.

A step draws packs until it has enough tokens, sums their gradients, divides by the sum of loss weights, and updates. What a
run writes: ``config.json`` (resolved), ``run.json`` (each start: versions, commit, plan), ``metrics.jsonl``, TensorBoard
events, ``checkpoints/``, sample pages and ``curve.png``.

A run that is killed at any moment and resumed goes through the same losses bit by bit: data order and random draws are
functions of the seed and the step, and everything else is in the checkpoint.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import random
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vedere import config as configs
from vedere.atomic import write_together
from vedere.data.loader import Loader, LoaderConfig
from vedere.data.mixture import seed_of
from vedere.data.packing import PackLimits
from vedere.errors import ConfigError, TrainingError
from vedere.models.clip_vit import ClipViT
from vedere.models.decoder import Decoder
from vedere.models.shards import json_writer
from vedere.models.vision_language import VisionLanguageModel
from vedere.text.tokenizer import Tokenizer
from vedere.train.batch import Batch, make_batch, without_tails
from vedere.train.evaluate import held_out
from vedere.train.flops import training_flops
from vedere.train.losses import chunked_cross_entropy
from vedere.train.monitor import Metrics, draw_curves, read_metrics
from vedere.train.optim import Optimizer
from vedere.train.precision import matmul_limit, training_dtype
from vedere.train.prefix import SharedPrefix
from vedere.train.provenance import earlier_starts, provenance
from vedere.train.run import RunConfig, Say, build_model, count_data, open_data, preparer
from vedere.train.stages import HD_VIEWS, LORA, StageConfig, set_trainable
from vedere.train.state import read_checkpoint, write_checkpoint

OnEvaluation = Callable[[VisionLanguageModel, Tokenizer, RunConfig, StageConfig, Path, int], None]


class Interrupted(Exception):
    """Ctrl-C or the end of the time that a run was given: the state was saved."""


def backward(model: VisionLanguageModel, batch: Batch, prefix: SharedPrefix | None = None) -> float:
    """Weighted sum of the losses of a pack; its gradient is added to the parameters.

    Args:
        model: The model.
        batch: A pack.
        prefix: Computes the common beginning of the documents once; only while all text parameters are frozen.

    Raises:
        TrainingError: the loss is not finite.
    """
    batch, cache = without_tails(batch), None
    if prefix is not None:
        batch, cache = prefix.strip(batch)
    hidden = model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels, cache, batch.rows)
    total = chunked_cross_entropy(hidden, model.decoder.head_weight, batch.targets, batch.weights)
    value = float(total.detach())
    if not math.isfinite(value):
        raise TrainingError(f"loss {value} in a pack of samples {', '.join(batch.names[:8])}")
    if total.requires_grad:  # a pack without pictures reaches nothing that learns while the text parameters are frozen
        total.backward()
    return value


class Trainer:
    """Runs a recipe in a directory.

    Args:
        config: What to do.
        directory: Where results go.
        resume: Continue from the newest checkpoint of ``directory``.
        say: Receives messages for people.
        progress: Called after each step with its metrics.
        on_evaluation: Called at each evaluation with model, tokenizer, config, stage, directory and steps done (sample pages).
    """

    def __init__(
        self,
        config: RunConfig,
        directory: Path | str,
        resume: bool = False,
        say: Say = print,
        progress: Callable[[dict[str, Any]], None] | None = None,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        if not config.stages:
            raise TrainingError(f"recipe '{config.recipe}' has no stages; nothing would be trained")
        self.config, self.directory, self.say = config, Path(directory), say
        self.progress, self.on_evaluation = progress, on_evaluation
        self.on_error: Literal["raise", "skip"] = "skip" if config.on_error == "skip" else "raise"
        if config.threads:
            torch.set_num_threads(config.threads)
        self.resume = resume
        self.saved = read_checkpoint(self.directory / "checkpoints") if resume else None
        if resume and self.saved is None:
            say(f"nothing to resume in {self.directory}; starting from the beginning")
        if not resume and (self.directory / "metrics.jsonl").exists():
            raise TrainingError(
                f"{self.directory} holds a run already; resume it (--resume) or choose another directory"
            )
        self.records = count_data(config)
        self.device = config.torch_device
        if self.saved is not None and config.precision == "auto" and "precision" in self.saved[2]:
            config = replace(config, precision=self.saved[2]["precision"])  # the format is part of the bits
        self.dtype = training_dtype(config.precision, self.device)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.directory} cannot be the directory of a run ({error.strerror}); choose another"
            ) from error
        model, words = build_model(config.model, config.seed, say)
        self.tokenizer, self.language_model = words.tokenizer, words.language_model
        self.model = model.to(self.device, self.dtype)
        for part in self.model.modules():
            if isinstance(part, (Decoder, ClipViT)):
                part.checkpoint_layers = config.checkpoint_layers
        for stage in config.stages:  # what does not fit in the last stage is found now, not after hours
            set_trainable(self.model, stage.trains)
            if stage.position_mode != "default" and not model.decoder.config.v2pe:
                raise ConfigError(
                    f"stage '{stage.name}' has fractional positions, but the model of {config.model.start} is made without "
                    "them; start from one that has them, or set the stage's position_mode to default"
                )
        lora = [name for name, _ in model.named_parameters() if ".low.lora_" in name] if config.model.lora.rank else []
        patterns = {pattern for stage in config.stages for pattern in stage.trains}
        self.tuned = [n for n, _ in model.named_parameters() if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
        if lora and not set(lora) & set(self.tuned):
            raise ConfigError(
                f"model.lora.rank is {config.model.lora.rank}, but no stage trains the LoRA; set a stage's trains to "
                f"{LORA[0]}, or model.lora.rank to 0"
            )
        self.done: dict[str, Any] = {"stage": 0, "step_in_stage": 0, "step": 0, "tokens": 0, "loader": None}
        self.done["precision"] = "bf16" if self.dtype == torch.bfloat16 else "fp32"
        self.stop = False
        self.deadline = time.monotonic() + 60 * config.minutes if config.minutes else math.inf
        self.write_description()

    def write_description(self) -> None:
        """Writes the resolved config, and adds this start to those before it; on a full disk the earlier files stay."""
        start = {"after_step": self.saved[2]["step"] if self.saved else 0, "records": self.records}
        start |= provenance(self.model, self.config, self.device, self.dtype, self.language_model)
        starts = [*(earlier_starts(self.directory) if self.resume else []), start]
        files = {"config.json": configs.to_dict(self.config), "run.json": {"starts": starts}}
        write_together(self.directory, {name: json_writer(data) for name, data in files.items()})

    def train(self) -> dict[str, Any]:
        """Runs all stages that are left.

        Returns:
            The last metrics line and the place of the weights.

        Raises:
            TrainingError: a non-finite loss or gradient (names step and samples; the last checkpoint is kept).
            Interrupted: after Ctrl-C or ``minutes``, when everything is saved.
        """
        self.optimizer_state: dict[str, Tensor] = {}
        if self.saved is not None:
            tensors, self.optimizer_state, self.done = self.saved
            self.restore(tensors)
            self.saved = None  # mapped files: they would hold the disk space of a checkpoint that is removed later
            del tensors
            self.say(f"resuming after step {self.done['step']} in stage {self.config.stages[self.done['stage']].name}")
        self.metrics = Metrics(self.directory, self.done["step"])
        shape = self.model.decoder.config
        self.limit = matmul_limit(self.device, self.dtype, shape.hidden_size, 2 * shape.ffn_size)
        try:
            with _catch_interrupt(self):
                for index in range(self.done["stage"], len(self.config.stages)):
                    self.run_stage(index)
                    last = index + 1 == len(self.config.stages)
                    if not last:
                        self.done |= {"stage": index + 1, "step_in_stage": 0, "loader": None}
        finally:
            self.metrics.close()
        lines = read_metrics(self.directory / "metrics.jsonl")
        with contextlib.suppress(ImportError):
            draw_curves(lines, self.directory / "curve.png", self.config.recipe)
        return {
            "last": next((line for line in reversed(lines) if "loss" in line), {}),
            "directory": str(self.directory),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts the learned tensors of a checkpoint into the model.

        Raises:
            TrainingError: they are not exactly what this recipe trains; names what is missing, surplus or misshapen.
        """
        own = dict(self.model.named_parameters())
        wrong = {
            "missing": sorted(set(self.tuned) - set(tensors)),
            "surplus": sorted(set(tensors) - set(self.tuned)),
            "of another shape": [n for n in self.tuned if n in tensors and tensors[n].shape != own[n].shape],
        }
        if any(wrong.values()) or self.done["stage"] >= len(self.config.stages):
            listed = "; ".join(f"{len(names)} {kind}, first '{names[0]}'" for kind, names in wrong.items() if names)
            raise TrainingError(
                f"the checkpoint of step {self.done['step']} does not fit this recipe "
                f"({listed or 'it has fewer stages'}); resume with the recipe and options that wrote it (config.json)"
            )
        for name, tensor in tensors.items():
            own[name].data.copy_(tensor)

    def run_stage(self, index: int) -> None:
        """One stage, from wherever the state stands."""
        stage = self.config.stages[index]
        learning = set_trainable(self.model, stage.trains)
        count = sum(dict(self.model.named_parameters())[name].numel() for name in learning)
        self.say(
            f"stage {stage.name}: {len(learning)} tensors, {count / 1e6:.1f} M parameters learn, {stage.steps} steps"
        )
        frozen_text = self.device.type == "cpu" and all(_is_visual(name) for name in learning)
        self.prefix = SharedPrefix(self.model.decoder) if frozen_text else None
        optimizer = Optimizer(self.model, stage.optim, stage.steps)
        if self.optimizer_state:
            optimizer.load_state(self.optimizer_state)
            self.optimizer_state = {}
        with contextlib.closing(self.packs(stage)) as packs:
            self.run_steps(stage, optimizer, packs)

    def run_steps(self, stage: StageConfig, optimizer: Optimizer, packs: Iterator[Any]) -> None:
        """Steps of a stage, evaluations and checkpoints between them."""
        first = self.done["step_in_stage"]
        for step in range(first, stage.steps):
            self.one_step(stage, optimizer, packs)
            self.done["step_in_stage"] = step + 1
            self.stop = self.stop or time.monotonic() > self.deadline
            last = step + 1 == stage.steps
            every = self.config.eval_every
            if last or (every and (step + 1) % every == 0):
                self.evaluate(stage)
            if last or self.stop or (step + 1) % self.config.save_every == 0:
                self.save(optimizer)
            if self.stop:
                raise Interrupted(f"stopped after step {self.done['step']}; continue with --resume")

    def packs(self, stage: StageConfig) -> Generator[Any, None, None]:
        """The stage's stream of (pack, state)."""
        limits = PackLimits(tokens=stage.pack_tokens, tiles=stage.pack_tiles)
        config = LoaderConfig(
            seed=seed_of(self.config.seed, stage.name),
            limits=limits,
            workers=self.config.workers,
            on_error=self.on_error,
        )
        parts = open_data(self.config, stage.data, given_num=stage.given_num)
        loader = Loader(config, parts, preparer(self.config, stage, self.tokenizer))
        if self.done["loader"]:
            loader.resume(self.done["loader"])
        yield from loader

    def one_step(self, stage: StageConfig, optimizer: Optimizer, packs: Iterator[Any]) -> None:
        """Draws packs, sums gradients, updates, logs."""
        start = time.perf_counter()
        step = self.done["step"]
        tokens = targets = documents = visual = packs_used = 0
        loss = weight = flops = waiting = 0.0
        names: list[str] = []
        self.model.train()
        torch.manual_seed(seed_of(self.config.seed, "dropout", step))  # so that a resumed run drops the same
        while tokens < stage.tokens_per_step or documents < stage.samples_per_step:
            before = time.perf_counter()
            pack, loader_state = next(packs)
            rng = random.Random(seed_of(self.config.seed, "positions", step, packs_used))
            batch = make_batch(pack, stage, self.model, rng)
            waiting += time.perf_counter() - before
            with self.naming(stage):
                loss += backward(self.model, batch, self.prefix)
            optimizer.collect()
            names += batch.names
            weight += float(batch.weights.sum())
            seen = int((batch.span_types != 0).sum())
            flops += training_flops(self.model.decoder, batch.borders, seen, len(batch.targets))
            tokens, targets, visual = tokens + len(batch.ids), targets + len(batch.targets), visual + seen
            documents, packs_used = documents + len(batch.names), packs_used + 1
        with self.naming(stage, names):
            norm, rate = optimizer.step(weight)
        seconds = time.perf_counter() - start
        self.done |= {"step": step + 1, "tokens": self.done["tokens"] + tokens, "loader": loader_state}
        values = {
            "step": step + 1,
            "stage": stage.name,
            "loss": loss / weight,
            "lr": rate,
            "grad_norm": norm,
            "tokens": self.done["tokens"],
            "samples": documents,
            "tokens_per_second": tokens / seconds,
            "fill": tokens / (packs_used * stage.pack_tokens),
            "target_share": targets / tokens,
            "visual_share": visual / tokens,
            "mfu": flops / seconds / self.limit,
            "data_seconds": waiting,
            "seconds": seconds,
        }
        self.metrics.write(values)
        if self.progress is not None:
            self.progress(values)

    @contextlib.contextmanager
    def naming(self, stage: StageConfig, names: Sequence[str] = ()) -> Iterator[None]:
        """Adds step, stage and samples to what goes wrong inside."""
        try:
            yield
        except TrainingError as error:
            samples = f" (samples {', '.join(names[:8])})" if names else ""
            raise TrainingError(
                f"step {self.done['step'] + 1}, stage {stage.name}: {error}{samples}; the last checkpoint is kept: lower the "
                "learning rate or look at these samples, then --resume"
            ) from None

    def evaluate(self, stage: StageConfig) -> None:
        """Held-out loss and exact answers, and whatever `on_evaluation` makes."""
        if not self.config.held_out:
            return
        self.model.eval()
        parts = open_data(self.config, self.config.held_out)
        prepare = preparer(self.config, stage, self.tokenizer)
        results = held_out(self.model, parts, prepare, stage, self.config.eval_samples, self.on_error)
        table = {name: {"loss": r.loss, "exact": r.exact, "samples": r.samples} for name, r in results.items()}
        self.metrics.write({"step": self.done["step"], "tokens": self.done["tokens"], "held_out": table})
        shown = "  ".join(f"{name} {result.exact:.0%}" for name, result in results.items())
        self.say(f"held out after step {self.done['step']}: {shown}")
        if self.on_evaluation is not None:
            self.on_evaluation(self.model, self.tokenizer, self.config, stage, self.directory, self.done["step"])

    def save(self, optimizer: Optimizer) -> None:
        """Writes a checkpoint of everything that any stage trains."""
        parameters = dict(self.model.named_parameters())
        tensors = {name: parameters[name].data for name in self.tuned}
        write_checkpoint(
            self.directory / "checkpoints",
            self.done["step"],
            tensors,
            optimizer.state(),
            dict(self.done),
            self.config.keep,
        )


def _is_visual(name: str) -> bool:
    """Whether a parameter acts on visual tokens only."""
    return name.startswith(("stem.", "vision.", "projector.", *HD_VIEWS)) or ".visual." in name or ".partial." in name


@contextlib.contextmanager
def _catch_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, as clusters send it) lets the step finish and saves; a second one stops at once."""

    def handle(number: int, frame: Any) -> None:
        if trainer.stop:
            raise KeyboardInterrupt
        trainer.stop = True
        with contextlib.suppress(RuntimeError):  # the signal came while something was being printed
            trainer.say("stopping after this step (once more to stop at once)")

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: nothing to catch
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
