"""Folders of weights: released ones, vedere's own, and deltas; loaded whole or refused.

`load_model` reads config.json (`vedere.models.published`), finds the family by fields and tensor names, checks that the
tensors are exactly those of that model, and hands them to a model built without memory (torch's meta device). Files are
memory-mapped: what has the right dtype and order of rows is used in place; what is rearranged (`vedere.models.keymaps`),
converted or sent to a device is taken tensor by tensor, each in a mapping that ends with it, and the largest first, while
little else is there. So at no time do two copies of the model exist: peak memory is the weights and one small tensor
(`benchmarks/loading.py`). `save_model` is the inverse in any layout, atomically.

A folder in vedere's layout: ``config.json`` with ``"format": "vedere"`` and ``model.safetensors`` with vedere's names, or
``delta.safetensors`` (`vedere.models.delta`) which needs the folder of its language model as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vedere.atomic import write_atomically, write_together
from vedere.errors import CheckpointError
from vedere.models import hf_config, hf_names, keymaps, xcomposer2_files, xcomposer_files
from vedere.models.attention import Backend
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import DELTA, DeltaReport, load_delta, save_delta, tensors_sha256
from vedere.models.devices import choose_device
from vedere.models.diagnosis import check_shapes
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.key_rules import KeyMap, Rule, Same
from vedere.models.keymaps import Naming
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.published import (
    CheckpointConfig,
    ModelConfig,
    language_naming,
    native_config,
    original_config,
    read_config,
)
from vedere.models.shards import Stored, json_writer, open_tensors, read_file, read_tensors, write_tensors
from vedere.models.xcomposer import XComposer, XComposerConfig
from vedere.models.xcomposer2 import XComposer2, XComposer2Config

__all__ = [
    "CheckpointConfig",
    "DeltaReport",
    "load_delta",
    "load_model",
    "model_config",
    "read_config",
    "read_file",
    "read_own",
    "read_tensors",
    "save_delta",
    "save_delta_of",
    "save_model",
    "tensors_sha256",
    "write_atomically",
    "write_tensors",
    "write_together",
]

Progress = Callable[[int, int], None]
_PREFIX = "decoder."
_UNREAD = (*xcomposer_files.BUFFERS, *xcomposer2_files.UNUSED)  # follows from config.json, or nobody uses it
_RUN_IN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_INITIAL_VALUES = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "mul", "__mul__"}  # randn(n) * 0.02


def key_map(
    config: ModelConfig, layout: str = "vedere", language: Naming = "internlm2", found: Collection[str] = ()
) -> KeyMap:
    """The map between the names in files of ``layout`` and vedere's, for one model.

    Args:
        config: Shape.
        layout: See `vedere.models.published.CheckpointConfig`.
        language: Names of the language model's tensors in the layout ``original``.
        found: Names in the file, where that layout has several generations of them.

    Raises:
        CheckpointError: the layout has no such model.
    """
    if layout == "hf":
        if not isinstance(config, InternVLConfig):
            raise CheckpointError(
                f"the native layout of transformers is for InternVL with a tower; this is a {type(config).__name__}; save it "
                'with layout="vedere" or "original"'
            )
        return hf_names.key_map(config, hf_names.generation(found), hf_names.has_joint_experts(found))
    names = keymaps.NAMINGS[language] if layout == "original" else keymaps.OWN
    if isinstance(config, MonoInternVLConfig):
        return keymaps.mono_internvl(config, names)
    if isinstance(config, InternVLConfig):
        return keymaps.internvl(config, names)
    if isinstance(config, XComposer2Config):
        return xcomposer2_files.key_map(config, names)
    if isinstance(config, XComposerConfig):
        return xcomposer_files.key_map(config, keymaps.LLAMA if layout == "original" else keymaps.OWN)
    own = {"internlm2": keymaps.internlm2, "llama": keymaps.llama, "phi3": keymaps.phi3}
    return own.get(layout, keymaps.own)(config)


def read_own(
    directory: Path | str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[CheckpointConfig, Iterator[tuple[str, Tensor]]]:
    """Config and tensors of a folder under vedere's names, checked, one tensor at a time, memory-mapped where possible.

    Args:
        directory: Folder in any layout.
        dtype: Dtype of the tensors; None takes them as stored.
        device: Where they go.

    Raises:
        CheckpointError: unreadable files; missing, surplus or misshapen tensors; values that are no floating point; several
            dtypes and no word about which to take.
    """
    directory = Path(directory)
    files = open_tensors(directory)
    stored = {name: tensor for name, tensor in files.tensors.items() if not name.endswith(_UNREAD)}
    config = read_config(directory, stored)
    integers = [name for name, tensor in stored.items() if not tensor.is_floating_point()]
    if integers:
        raise CheckpointError(
            f"{directory}: '{integers[0]}' is {_name(stored[integers[0]].dtype)} ({len(integers)} such tensors); expected "
            "floating point. Quantised releases of other programs are not supported: use the bfloat16 release"
        )
    if dtype is None and isinstance(config.model, (XComposerConfig, XComposer2Config)):
        dtype = _one_dtype(config, stored)
    if dtype is None:
        _check_one_dtype(stored, str(directory))
        _check_stored(stored, str(directory))
    names = _by_the_head(key_map(config.model, config.layout, config.language, stored), stored)
    own = config.layout in ("vedere", "decoder")
    shapes = names.own_shapes if own else names.foreign_shapes
    check_shapes({n: tuple(t.shape) for n, t in stored.items()}, shapes, str(directory), names.family)
    rules = [Rule(n, shape, (n,), (shape,), Same()) for n, shape in shapes.items()] if own else list(names.rules)
    return config, _arranged(files, rules, dtype, torch.device(device))


def _by_the_head(names: KeyMap, stored: Collection[str]) -> KeyMap:
    """The map with a tied embedding under the name of its head, where a file holds one tensor of the two and that is it.

    Which of two equal tensors is written depends on the program: safetensors' own `save_model` takes the first in the alphabet.
    """
    known = names.foreign_shapes
    heads = [name for name in stored if name.endswith(("lm_head.weight", "output.weight")) and name not in known]
    rules = list(names.rules)
    place = next((k for k, rule in enumerate(rules) if rule.own == "decoder.embed.weight"), None)
    if place is None or len(heads) != 1 or rules[place].foreign[0] in stored:
        return names
    rules[place] = replace(rules[place], foreign=(heads[0],))
    return KeyMap(names.family, tuple(rules))


def _check_stored(stored: Mapping[str, Tensor], where: str) -> None:
    """Refuses a dtype that nothing can be computed in, float8 above all."""
    odd = [name for name, tensor in stored.items() if tensor.dtype not in _RUN_IN]
    if odd:
        raise CheckpointError(
            f"{where}: '{odd[0]}' is {_name(stored[odd[0]].dtype)} ({len(odd)} such tensors), which nothing is computed in; "
            "take the bfloat16 release, or say which dtype to use (dtype=..., or --dtype)"
        )


def _check_one_dtype(stored: Mapping[str, Tensor], where: str) -> None:
    """Refuses tensors of several dtypes: those that are joined into one would silently take the widest."""
    counts = Counter(tensor.dtype for tensor in stored.values())
    if len(counts) > 1:
        rarest = min(counts, key=counts.__getitem__)
        odd = next(name for name, tensor in stored.items() if tensor.dtype == rarest)
        raise CheckpointError(
            f"{where} stores tensors as {', '.join(sorted(map(_name, counts)))}; say which dtype to use "
            f"(dtype=..., or --dtype). '{odd}' is {_name(rarest)}, as {counts[rarest]} of {len(stored)} tensors are"
        )


def _one_dtype(config: CheckpointConfig, stored: Mapping[str, Tensor]) -> torch.dtype | None:
    """XComposer's files mix float32 with a half: the second one's config.json says what the model runs in.

    The first one's says float32 and means the norms and adapters beside float16; of the halves, only bfloat16 is safe here.
    """
    found = {tensor.dtype for tensor in stored.values()}
    if isinstance(config.model, XComposerConfig):
        return torch.bfloat16 if len(found) > 1 else None
    named = getattr(torch, str(config.extras.get("torch_dtype", "bfloat16")), None)
    return named if len(found) > 1 and isinstance(named, torch.dtype) else None


def _arranged(
    files: Stored, rules: Sequence[Rule], dtype: torch.dtype | None, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """vedere's tensors, those that are copied first and among them the largest first."""

    def copied(rule: Rule) -> int:
        sources = [files.tensors[name] for name in rule.foreign]
        as_it_is = isinstance(rule.layout, Same) and dtype in (None, sources[0].dtype) and device.type == "cpu"
        return 0 if as_it_is else sum(source.nbytes for source in sources)

    for rule in sorted(rules, key=copied, reverse=True):
        take = files.alone if copied(rule) else files.tensors.__getitem__
        yield rule.own, _moved([take(name) for name in rule.foreign], rule, dtype, device)


def _moved(parts: list[Tensor], rule: Rule, dtype: torch.dtype | None, device: torch.device) -> Tensor:
    """One tensor out of its parts; a function of its own, so that nothing holds the parts afterwards."""
    if device.type == "meta":
        parts = [part.to(device) for part in parts]  # nothing is read
    joined: Tensor = rule.layout.join([part if dtype is None else part.to(dtype) for part in parts], rule.own_shape)
    return joined.to(device)


def load_model(
    directory: Path | str,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    language_model: Path | str | None = None,
    backend: Backend = "auto",
    progress: Progress | None = None,
) -> nn.Module:
    """Loads a model: `MonoInternVL`, `InternVL`, `XComposer`, `XComposer2`, or a bare `Decoder`.

    Args:
        directory: Folder in any layout.
        dtype: Dtype of the weights; None takes them as stored.
        device: Where they go.
        language_model: Folder of the language model (`vedere.models.sources.language_model`), for deltas only.
        backend: Attention backend.
        progress: Receives (bytes in place, bytes in all) after every tensor.

    Raises:
        CheckpointError: anything that is not exactly one complete checkpoint, or a dtype that the model cannot run in.
        ConfigError: a config of vedere's own that does not fit this version, or a device that is not there.
    """
    directory, device = Path(directory), choose_device(device)
    if (directory / DELTA).is_file():
        config, tensors = _read_with_delta(directory, language_model)
    else:
        config, tensors = read_own(directory, dtype, device)
    _check_dtype(config.model, dtype)
    state: dict[str, Tensor] = {}
    done, total = 0, 0
    for name, tensor in tensors:
        state[name] = tensor.to(device=device, dtype=dtype or tensor.dtype)
        if progress is not None:
            total = total or _bytes(config.model, state[name].element_size())
            done += state[name].nbytes
            progress(done, total)
    found = {tensor.dtype for tensor in state.values()}
    if len(found) > 1:
        raise CheckpointError(
            f"{directory} stores tensors as {', '.join(sorted(map(_name, found)))}; say which dtype to use (dtype=...)"
        )
    _check_dtype(config.model, next(iter(found)))
    model = _build(config.model, backend)
    if isinstance(model, Decoder):
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def save_model(
    model: nn.Module,
    directory: Path | str,
    layout: Literal["vedere", "original", "hf"] = "vedere",
    max_shard_bytes: int = 5_000_000_000,
    extras: Mapping[str, Any] | None = None,
    image_token: int | None = None,
) -> None:
    """Writes config.json and weights; an earlier checkpoint in ``directory`` stays valid until the new one is complete.

    Args:
        model: `MonoInternVL`, `InternVL`, `XComposer`, `XComposer2` or `Decoder`.
        directory: Target folder.
        layout: ``vedere``; ``original``: names and config of the released InternVL code; ``hf``: those of transformers.
        max_shard_bytes: Largest file; more than one file comes with an index.
        extras: Fields of an original config.json to carry along (``read_config(...).extras``): template, tiling, stop ids.
        image_token: Id of the token that stands for a picture, which only the native config of transformers holds.

    Raises:
        CheckpointError: the layout has no such model, or the disk is full; the earlier checkpoint is intact.
    """
    config = model_config(model)
    prefix = _PREFIX if isinstance(model, Decoder) else ""
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    if layout == "original":
        data = original_config(config, extras or {})
        data["torch_dtype"] = _name(next(iter(tensors.values())).dtype)
        if isinstance(config, XComposerConfig):
            tensors = key_map(config, layout).to_foreign(tensors) | xcomposer_files.buffers(config)
        else:
            tensors = key_map(config, layout, language_naming(data)).to_foreign(tensors)
    elif layout == "hf":
        names = key_map(config, "hf")
        assert isinstance(config, InternVLConfig)  # `key_map` refuses the others
        data = hf_config.hf_config(config, extras or {}, image_token)
        data["dtype"] = _name(next(iter(tensors.values())).dtype)
        tensors = names.to_foreign(tensors)
    elif layout == "vedere":
        data = native_config(config, extras or {})
    else:
        raise CheckpointError(f"unknown layout '{layout}'; expected 'vedere', 'original' or 'hf'")
    write_tensors(directory, tensors, max_shard_bytes=max_shard_bytes, beside={"config.json": json_writer(data)})


def save_delta_of(
    model: nn.Module,
    directory: Path | str,
    base: Mapping[str, Tensor],
    *,
    bits: int = 4,
    group: int = 64,
    origin: str = "",
    extras: Mapping[str, Any] | None = None,
) -> DeltaReport:
    """Writes a model as config.json + `delta.safetensors` against its frozen language model; see `save_delta`."""
    beside = {"config.json": json_writer(native_config(model_config(model), extras or {}))}
    return save_delta(directory, base, model.state_dict(), bits=bits, group=group, origin=origin, beside=beside)


def model_config(model: nn.Module) -> ModelConfig:
    """The config that a model was built from.

    Raises:
        CheckpointError: not one of vedere's assemblies.
    """
    config = getattr(model, "config", None)
    if isinstance(config, (MonoInternVLConfig, InternVLConfig, XComposerConfig, XComposer2Config, DecoderConfig)):
        return config
    raise CheckpointError(
        f"cannot save a {type(model).__name__}; expected MonoInternVL, InternVL, XComposer, XComposer2 or Decoder"
    )


def _build(config: ModelConfig, backend: Backend) -> nn.Module:
    with torch.device("meta"), _NoInitialValues():  # no memory, no numbers: every parameter is assigned afterwards
        if isinstance(config, MonoInternVLConfig):
            return MonoInternVL(config, backend)
        if isinstance(config, InternVLConfig):
            return InternVL(config, backend)
        if isinstance(config, XComposer2Config):
            return XComposer2(config, backend)
        if isinstance(config, XComposerConfig):
            return XComposer(config, backend)
        return Decoder(config, backend)


class _NoInitialValues(TorchFunctionMode):
    """Skips random initial values. On the meta device they are nothing, but their first use imports sympy or dynamo: 1.5 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _INITIAL_VALUES:
            return args[0] if args else (kwargs or {}).get("tensor")
        if func is torch.randn:
            func = torch.empty
        return func(*args, **(kwargs or {}))


def _read_with_delta(
    directory: Path, language_model: Path | str | None
) -> tuple[CheckpointConfig, Iterator[tuple[str, Tensor]]]:
    config = read_config(directory)
    if language_model is None:
        raise CheckpointError(
            f"{directory} holds only what training added to a language model ({DELTA}); give the folder of that model as "
            "well (language_model=vedere.models.sources.language_model())"
        )
    from vedere.models.sources import identity

    base_config, tensors = read_own(language_model)
    if not isinstance(base_config.model, DecoderConfig):
        raise CheckpointError(f"{language_model} holds a {base_config.family} model; expected a bare language model")
    base = dict(tensors)
    own = base | load_delta(directory, base, identity(language_model))
    shapes = key_map(config.model).own_shapes
    check_shapes({n: tuple(t.shape) for n, t in own.items()}, shapes, str(directory), config.family)
    return config, iter(own.items())


def _bytes(config: ModelConfig, width: int) -> int:
    return width * sum(math.prod(shape) for shape in key_map(config).own_shapes.values())


def _check_dtype(config: ModelConfig, dtype: torch.dtype | None) -> None:
    if dtype is None:
        return
    if isinstance(config, MonoInternVLConfig) and dtype == torch.float16:
        raise CheckpointError(
            "float16 is refused for Mono-InternVL: its activations overflow and the released weights give NaN logits; use "
            "dtype=torch.bfloat16 or torch.float32"
        )
    if dtype not in _RUN_IN:
        raise CheckpointError(f"weights cannot run as {_name(dtype)}; use torch.bfloat16 or torch.float32")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
