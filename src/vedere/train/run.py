"""A run's config, and the model, tokenizer and data that it describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from vedere.config import check_ranges
from vedere.data.mixture import Part, open_sets, seed_of
from vedere.data.prepare import SamplePreparer
from vedere.errors import CheckpointError, ConfigError
from vedere.models.adapters import LoRA, PartialLoRA, attach, merge_lora
from vedere.models.checkpoints import load_model
from vedere.models.decoder import Decoder
from vedere.models.delta import DELTA
from vedere.models.devices import choose_device
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.namer import read_namer
from vedere.models.patches import PatchConfig
from vedere.models.stem import load_stem
from vedere.models.vision_language import VisionLanguageModel
from vedere.models.xcomposer import XComposer
from vedere.models.xcomposer2 import XComposer2
from vedere.plan import HDPolicy, Policy, SquarePolicy, TilingPolicy
from vedere.text.chat import get_template
from vedere.text.tokenizer import TOKENIZER_FILES, Tokenizer
from vedere.train.precision import Precision
from vedere.train.stages import StageConfig
from vedere.train.vocabulary import grow_vocabulary
from vedere.train.xcomposer2 import TowerSource, new_xcomposer2, set_dropout

Say = Callable[[str], None]
Architecture = Literal["mono-internvl", "xcomposer2", "xcomposer"]
_CLASSES: dict[str, type[VisionLanguageModel]] = {
    "mono-internvl": MonoInternVL,
    "xcomposer2": XComposer2,
    "xcomposer": XComposer,
}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a training starts.

    Attributes:
        language_model: Folder of the language model; empty: SmolLM2-135M-Instruct, fetched once.
        start: Folder of a vision-language model to go on from; empty: experts are copied from the language model,
            patches and projector are new.
        template: Chat template; the tokens of its media are added to a vocabulary that lacks them.
        patch_width: Width C of the patch embedding.
        patch: Side of a patch in pixels.
        tile: Side of a tile in pixels.
        stem: Parts of a pretrained stem before the patches (`vedere.models.stem`); empty: bare patches, as in the paper.
        transcript: Text that the stem's reader finds is put into the visual tokens (`vedere.models.transcript`).
        reading_scales: Sizes at which it is read; several cost training time (`vedere.models.readings`).
        names: Names of what a picture shows are put into the visual tokens (`vedere.models.namer`); with ``start``, a model
            without them is given them.
        visual_attention: Visual attention experts (Mono-InternVL-1.5).
        v2pe: Fractional positions; what stages with a ``position_mode`` other than ``default`` need.
        architecture: What is built, or expected in ``start``: Mono-InternVL; XComposer2 with its tower, projector and partial
            LoRA; or XComposer, which a folder has to bring.
        tower: Vision tower of a new XComposer2.
        partial: Its partial LoRA.
        lora: LoRA that the run attaches to the language model; rank 0: none. Stages train it as `vedere.train.stages.LORA`.
    """

    language_model: str = ""
    start: str = ""
    template: str = "smollm2"
    patch_width: int = 256
    patch: int = 14
    tile: int = 112
    stem: tuple[str, ...] = ()
    transcript: bool = False
    reading_scales: tuple[float, ...] = (1.0,)
    names: bool = False
    visual_attention: bool = True
    v2pe: bool = False
    architecture: Architecture = "mono-internvl"
    tower: TowerSource = field(default_factory=TowerSource)
    partial: PartialLoRA = field(default_factory=PartialLoRA)
    lora: LoRA = field(default_factory=lambda: LoRA(rank=0))

    def __post_init__(self) -> None:
        """Checks the fields together.

        Raises:
            ConfigError: what the architecture does not have.
        """
        if self.architecture != "mono-internvl" and (self.stem or self.transcript or self.names or self.v2pe):
            raise ConfigError(
                f"stem, transcript, names and v2pe belong to mono-internvl, the architecture is {self.architecture}; leave "
                "them out"
            )
        if self.architecture == "xcomposer" and not self.start:
            raise ConfigError("XComposer goes on from a folder with its tower and sampler; set model.start to one")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run: stages one after the other.

    Attributes:
        recipe: Name of the recipe that made this config.
        data: Folder that the stages' data paths are relative to.
        held_out: Meta JSON of held-out data, relative to ``data``; empty: none is measured.
        model: Starting point.
        stages: What happens.
        seed: Of data order, augmentation and new weights.
        precision: Number format of weights and activations.
        threads: CPU threads; 0: torch's default.
        workers: Data processes; 0: the training process prepares samples itself.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint_layers: Recompute each layer in the backward pass instead of keeping its activations.
        save_every: Steps between checkpoints.
        eval_every: Steps between held-out measurements and sample pages; 0: only at the end of a stage.
        eval_samples: Samples of each held-out data set.
        keep: Checkpoints kept.
        on_error: What to do with a bad sample: ``raise`` or ``skip`` (logged and counted).
        minutes: Save and stop, resumable, after so many minutes; 0: no limit.
    """

    recipe: str
    data: str
    held_out: str = ""
    model: ModelSource = field(default_factory=ModelSource)
    stages: tuple[StageConfig, ...] = ()
    seed: int = 0
    precision: Precision = "auto"
    threads: int = 0
    workers: int = 0
    device: str = "auto"
    checkpoint_layers: bool = False
    save_every: int = 100
    eval_every: int = 0
    eval_samples: int = 64
    keep: int = 2
    on_error: str = "raise"
    minutes: float = 0.0

    def __post_init__(self) -> None:
        """Checks what the fields' types do not.

        Raises:
            ConfigError: two stages of one name, an unknown policy for bad samples, fractional positions in a model
                without them, or a number out of range.
        """
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"stage names {names} are not unique; give every stage its own name")
        if self.on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error '{self.on_error}'; expected raise or skip")
        fractional = [stage.name for stage in self.stages if stage.position_mode != "default"]
        if fractional and not (self.model.v2pe or self.model.start):
            raise ConfigError(
                f"stage '{fractional[0]}' has fractional positions, but the model is built without them; set model.v2pe=true"
            )
        check_ranges(self, save_every=1, keep=1, eval_samples=1, eval_every=0, threads=0, workers=0, minutes=0)

    @property
    def torch_device(self) -> torch.device:
        """The device to train on.

        Raises:
            ConfigError: this computer has no such device.
        """
        return choose_device(self.device)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The tokens that a run trains with.

    Attributes:
        tokenizer: With everything that the template writes.
        language_model: Folder of the language model; None where a whole model is the start and none was named.
        new: Tokens that the language model does not have yet, in the order of their ids.
    """

    tokenizer: Tokenizer
    language_model: Path | None
    new: tuple[str, ...]


def open_words(source: ModelSource, say: Say) -> Words:
    """Finds language model and tokenizer, and adds the template's tokens to it.

    A whole model to start from brings a tokenizer of its own, with its tokens in it.

    Raises:
        ConfigError: the vocabulary splits a marker of the template.
        CheckpointError: no language model, or no tokenizer.
    """
    from vedere.models.sources import language_model

    start = Path(source.start)
    whole = bool(source.start) and not (start / DELTA).is_file()
    own = whole and any((start / name).is_file() for name in TOKENIZER_FILES)
    folder = None if own and not source.language_model else language_model(source.language_model or None, say)
    tokenizer = Tokenizer.load(start if own or folder is None else folder)
    template = get_template(source.template)
    new = () if source.start else tokenizer.lacks(template.new_tokens)
    if new:
        tokenizer = tokenizer.with_tokens(new)
    template.check_markers(tokenizer)
    return Words(tokenizer=tokenizer, language_model=folder, new=new)


def build_model(source: ModelSource, seed: int, say: Say) -> tuple[VisionLanguageModel, Words]:
    """A model on a language model, its visual parts new (experts copied, partial LoRA without effect), or that of ``start``.

    Args:
        source: Starting point.
        seed: Of new weights.
        say: Receives a line before slow steps.

    Returns:
        (model in float32, its tokens).

    Raises:
        ConfigError: the language model's folder holds something else, or ``start`` is made for other tiles.
        CheckpointError: fewer rows than the tokenizer has tokens.
    """
    words = open_words(source, say)
    model = _started(source, words) if source.start else _new(source, words, seed, say)
    rows = model.decoder.config.vocab_size
    if isinstance(model, (XComposer, XComposer2)):
        words = replace(words, tokenizer=words.tokenizer.below(rows))
    if words.tokenizer.vocab_size > rows:
        raise CheckpointError(
            f"the tokenizer has {words.tokenizer.vocab_size} tokens, the model only {rows} rows; they do not belong together"
        )
    if isinstance(model, MonoInternVL):
        model.cut_with(words.tokenizer.pieces)
    if isinstance(model, XComposer2):
        set_dropout(model, source.partial.dropout)
    if source.lora.rank:
        _attach(model, source, seed)
    return model, words


def _attach(model: VisionLanguageModel, source: ModelSource, seed: int) -> None:
    """LoRA with new factors, the same for the same seed; what the release has of its own goes into the weights below it."""
    if isinstance(model, XComposer) and model.config.lora is not None:
        merge_lora(model)  # as `vedere.infer.loading` does before it puts an adapter on
    torch.manual_seed(seed_of(seed, "lora"))
    attach(model, source.lora)


def _started(source: ModelSource, words: Words) -> VisionLanguageModel:
    """The model of ``start``."""
    model = load_model(source.start, torch.float32, language_model=words.language_model)
    expected = _CLASSES[source.architecture]
    if not isinstance(model, expected):
        known = next((name for name, kind in _CLASSES.items() if isinstance(model, kind)), None)
        hint = f"set model.architecture to {known}" if known else f"training starts from a {expected.__name__}"
        raise ConfigError(
            f"{source.start} holds a {type(model).__name__}, the run trains {source.architecture}; {hint}"
        )
    if isinstance(model, XComposer2) and (model.config.views == "square") != source.tower.square:
        raise ConfigError(
            f"{source.start} sees {model.config.views} views; set model.tower.square to {not source.tower.square}"
        )
    made = model.patches
    if (made.tile, made.patch) != (source.tile, source.patch):
        raise ConfigError(
            f"{source.start} is made for tiles of {made.tile} px and patches of {made.patch}, the run for {source.tile} and "
            f"{source.patch}; set model.tile and model.patch to those of the model"
        )
    if source.names and isinstance(model, MonoInternVL) and not model.config.vision.names:
        return with_names(model)
    return model


def _new(source: ModelSource, words: Words, seed: int, say: Say) -> VisionLanguageModel:
    """A model around the language model."""
    assert words.language_model is not None
    base = load_model(words.language_model, torch.float32)
    if not isinstance(base, Decoder):
        raise ConfigError(f"{words.language_model} holds a {type(base).__name__}; expected a bare language model")
    shape, state = base.config, dict(base.state_dict())
    if words.new:
        rows = words.tokenizer.vocab_size
        say(
            f"adding {len(words.new)} tokens to the {shape.vocab_size} rows of the language model: {' '.join(words.new)}"
        )
        shape, state = grow_vocabulary(shape, state, rows, len(words.new), seed)
    torch.manual_seed(seed)
    if source.architecture == "xcomposer2":
        return new_xcomposer2(source.tower, source.partial, shape, state, source.patch_width, source.patch, source.tile)
    decoder = replace(shape, visual_ffn=True, visual_attention=source.visual_attention, v2pe=source.v2pe)
    vision = PatchConfig(
        width=source.patch_width,
        patch=source.patch,
        tile=source.tile,
        stem=source.stem,
        transcript=source.transcript,
        reading_scales=source.reading_scales,
        names=read_namer()[0] if source.names else (),
    )
    model = MonoInternVL(MonoInternVLConfig(vision=vision, decoder=decoder))
    _, surplus = model.load_state_dict({f"decoder.{name}": tensor for name, tensor in state.items()}, strict=False)
    if surplus:
        raise ConfigError(
            f"the language model in {words.language_model} has tensors that the model lacks: {surplus[:3]}"
        )
    model.copy_experts()
    if source.stem:
        load_stem(model.stem, say)
    return model


def with_names(model: MonoInternVL) -> MonoInternVL:
    """The model with the shipped namer, which the names of its config then are.

    Raises:
        ConfigError: its stem has no ``lite0``.
    """
    names, weights = read_namer()
    vision = replace(model.config.vision, names=names)
    with torch.device("meta"):
        named = MonoInternVL(replace(model.config, vision=vision), model.decoder.backend)
    state = model.state_dict() | {f"stem.namer.{name}": tensor.float() for name, tensor in weights.items()}
    named.load_state_dict(state, assign=True)
    return named


def policy_of(source: ModelSource, stage: StageConfig) -> Policy:
    """How the stage cuts pictures."""
    if source.architecture == "mono-internvl":
        return TilingPolicy(tile=source.tile, patch=source.patch, max_tiles=stage.max_tiles)
    if source.architecture == "xcomposer":
        return SquarePolicy(tile=source.tile, patch=source.patch, downsample=1, sampled=source.tower.sampled)
    if source.tower.square:
        return SquarePolicy(tile=source.tile, patch=source.patch, downsample=1)
    return HDPolicy(tile=source.tile, patch=source.patch, limit=stage.max_tiles)


def preparer(config: RunConfig, stage: StageConfig, tokenizer: Tokenizer) -> SamplePreparer:
    """How the stage's samples are prepared."""
    template = get_template(config.model.template)
    if config.model.architecture == "xcomposer":  # trained without the meta instruction of its later revision
        template = replace(template, system=None, system_with_media=None)
    return SamplePreparer(
        tokenizer=tokenizer,
        template=template,
        policy=policy_of(config.model, stage),
        limits=stage.limits,
        random_resolution=stage.random_resolution,
        statistics=_CLASSES[config.model.architecture].statistics,
        frames=stage.frames,
    )


def open_data(config: RunConfig, relative: str, *, given_num: bool = False) -> tuple[Part, ...]:
    """Opens what a stage names below the run's data folder, as `vedere.data.mixture.open_sets`."""
    return open_sets(Path(config.data) / relative, given_num=given_num)


def count_data(config: RunConfig) -> dict[str, dict[str, int]]:
    """Opens the data of all stages and held-out data, so that what cannot be opened is found before the first step.

    Lines and members are counted, no record is decoded: 0.2 s a million lines.

    Returns:
        Records of each data set, by meta file as the config names it.

    Raises:
        RecordError: a meta or mix file, or an annotation file that it names, is missing, empty or cut off.
    """
    wanted = {stage.data: stage.given_num for stage in config.stages}
    wanted |= dict.fromkeys(filter(None, [config.held_out]), False)
    return {
        relative: {part.name: len(part.records) for part in open_data(config, relative, given_num=given_num)}
        for relative, given_num in wanted.items()
    }
