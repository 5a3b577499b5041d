"""From a run directory to something that loads: a delta to the frozen language model, a LoRA alone, or a whole model."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vedere import config as configs
from vedere.errors import CheckpointError
from vedere.models.adapters import merge_lora, save_adapter
from vedere.models.checkpoints import load_model, read_config, save_delta_of, save_model
from vedere.models.delta import DeltaReport
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import TilingPolicy
from vedere.text.tokenizer import Tokenizer
from vedere.train.run import RunConfig, Say, build_model, policy_of
from vedere.train.state import read_checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A run's model with its newest weights.

    Attributes:
        model: In float32.
        tokenizer: Its tokenizer.
        language_model: Folder of the language model it started from; None where that was a whole model.
        config: The run's config.
        step: Steps that the weights have seen.
        tokens: Tokens that the weights have seen.
    """

    model: VisionLanguageModel
    tokenizer: Tokenizer
    language_model: Path | None
    config: RunConfig
    step: int
    tokens: int


def load_run(directory: Path | str, say: Say = print) -> TrainedModel:
    """The model of a run at its newest checkpoint.

    Raises:
        CheckpointError: the directory holds no run, no checkpoint, or one that its config does not describe.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} holds no config.json; expected a directory written by 'vedere train'")
    config = configs.load(RunConfig, directory / "config.json")
    saved = read_checkpoint(directory / "checkpoints")
    if saved is None:
        raise CheckpointError(f"{directory} has no complete checkpoint yet; let the run reach its first one")
    model, words = build_model(config.model, config.seed, say)
    own = dict(model.named_parameters())
    wrong = [name for name, tensor in saved[0].items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"{directory}: {len(wrong)} tensors of the newest checkpoint do not fit the model of config.json, first "
            f"'{wrong[0]}'; the two belong to different runs"
        )
    for name, tensor in saved[0].items():
        own[name].data.copy_(tensor)
    state = saved[2]
    return TrainedModel(
        model=model.eval(),
        tokenizer=words.tokenizer,
        language_model=words.language_model,
        config=config,
        step=state["step"],
        tokens=state["tokens"],
    )


def session_extras(trained: TrainedModel) -> dict[str, Any]:
    """What `vedere.load` needs besides the weights (template and tiling, in the originals' words), and where they came from."""
    last = trained.config.stages[-1]
    delta = last.v2pe_delta if last.position_mode == "v2pe_fix" else 1.0
    positions = {"rope_pos_id_stride": round(delta * 256)} if trained.model.decoder.config.v2pe else {}
    last_policy = policy_of(trained.config.model, last)
    limit = max(stage.max_tiles for stage in trained.config.stages)
    tiling = isinstance(last_policy, TilingPolicy)
    cutting = {"max_dynamic_patch": limit} if tiling else {"policy": configs.to_dict(last_policy)}
    first = trained.config.model.architecture == "xcomposer"  # trained without the template's meta instruction
    system = {"system_message": "none"} if first else {}
    return (
        positions
        | cutting
        | system
        | {
            "template": trained.config.model.template,
            "trained": _history(trained),
        }
    )


def _history(trained: TrainedModel) -> dict[str, Any]:
    """Recipe of this run, steps and tokens of all training so far, and the runs that they are made of, in order."""
    this = {"recipe": trained.config.recipe, "steps": trained.step, "tokens": trained.tokens}
    parts = [*_parts_before(trained.config.model.start), this]
    return this | {"steps": _sum(parts, "steps"), "tokens": _sum(parts, "tokens"), "parts": parts}


def _parts_before(start: str) -> list[dict[str, Any]]:
    """The runs that made the model which a run started from; none where it says nothing of the kind (a release)."""
    before = read_config(start).extras.get("trained") if start else None
    if not isinstance(before, Mapping):
        return []
    parts = before.get("parts")
    return [dict(part) for part in parts] if isinstance(parts, list) else [dict(before)]


def _sum(parts: list[dict[str, Any]], key: str) -> int:
    return sum(int(part.get(key, 0)) for part in parts)


def export_delta(trained: TrainedModel, out: Path | str, bits: int = 4) -> DeltaReport:
    """Writes config.json and the quantised difference to the language model.

    Raises:
        CheckpointError: training changed the language model or added tokens to it, so a delta cannot hold it.
    """
    from vedere.models.sources import language_model, origin

    if trained.config.model.lora.rank:
        raise CheckpointError(
            "the run trained LoRA, which changes the language model, so a delta cannot hold it; save the LoRA alone (--layout "
            "adapter) or the whole model (--layout vedere)"
        )
    folder = trained.language_model or language_model()
    base = load_model(folder)
    tensors = {f"decoder.{name}": tensor for name, tensor in base.state_dict().items()}
    rows, grown = len(tensors["decoder.embed.weight"]), trained.model.decoder.config.vocab_size
    if grown != rows:
        raise CheckpointError(
            f"the model has {grown} tokens, the language model in {folder} {rows}; a delta keeps the vocabulary of its "
            "language model. Save the whole model (--layout vedere or original)"
        )
    source = str(origin(folder).get("source") or folder.resolve())
    return save_delta_of(trained.model, out, tensors, bits=bits, origin=source, extras=session_extras(trained))


def export_adapter(trained: TrainedModel, out: Path | str) -> None:
    """Writes a run's LoRA alone, as peft does; `vedere.load` puts it onto the model that the run started from.

    Raises:
        CheckpointError: the run has no LoRA, trained something beside it, or made its model anew.
    """
    source = trained.config.model
    if not source.lora.rank:
        raise CheckpointError("the run has no LoRA (model.lora.rank is 0); save the whole model (--layout vedere)")
    patterns = [pattern for stage in trained.config.stages for pattern in stage.trains]
    names = [name for name, _ in trained.model.named_parameters() if ".low.lora_" not in name]
    beside = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if beside or not source.start:
        what = f"trained {len(beside)} other tensors, first '{beside[0]}'" if beside else "made its model anew"
        raise CheckpointError(f"the run {what}, which an adapter does not hold; save the whole model (--layout vedere)")
    save_adapter(trained.model, out, naming=source.lora.naming, base=source.start)


def export_model(
    trained: TrainedModel,
    out: Path | str,
    dtype: torch.dtype = torch.bfloat16,
    layout: Literal["vedere", "original"] = "vedere",
) -> None:
    """Writes the whole model with its tokenizer, in vedere's layout or under the names of the released code.

    LoRA that the run attached is merged into the weights, those of ``trained`` too.
    """
    if trained.config.model.lora.rank:
        merge_lora(trained.model)
    save_model(trained.model.to(dtype), out, layout, extras=session_extras(trained))
    trained.tokenizer.save(out)
