"""Writes what a model computes into a folder, so that a conversion, a new backend or another machine can be checked against it.

Inputs are random and seeded: a padded batch of a row with two pictures, a row with one, and a row of text; the tiles have the
model's own size, and under 4KHD a picture is a global view before a row of local ones. The folder has ``recording.json``
(which model, dtype, deltas), ``io.safetensors``, a README, and the weights only where asked for. `vedere.verify.recorded`
verifies it.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vedere.atomic import write_together
from vedere.errors import CheckpointError
from vedere.models.decoder import Decoder
from vedere.models.vision_language import VisionLanguageModel
from vedere.models.xcomposer2 import XComposer2
from vedere.plan import HDPolicy, SpanKind, plan_media
from vedere.verify.check import IO
from vedere.verify.outputs import NEW_TOKENS, Outputs
from vedere.verify.recorded import DESCRIPTION, MARGINS, TOLERANCES, has_tokenizer, load_any

MOST_WEIGHTS = 1_000_000_000  # bytes that are copied into a recording
DELTAS = (1, 16, 256)  # denominators recorded of a model with V2PE
_SEGMENTS = ((6, [2], 4, [1], 8), (5, [1], 7), (9,))  # an integer: tokens of text; [t]: a picture of t tiles


def record(
    model: Path | str,
    directory: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    with_weights: bool = False,
    seed: int = 0,
) -> tuple[str, ...]:
    """Records a model.

    Args:
        model: Folder, name of a shipped model, or ``ORG/NAME``.
        directory: Target; a recording in it is replaced.
        dtype: Of the weights; None as stored.
        device: Where it runs; None is the CPU.
        with_weights: Copy the weights into the folder.
        seed: Of the inputs.

    Returns:
        Names of the recorded tensors.

    Raises:
        CheckpointError: the model cannot be loaded, its weights are too large to copy, or the folder holds something else.
        ConfigError: no such model or device.
    """
    from vedere.infer.loading import find
    from vedere.models.shards import json_writer

    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or (any(directory.iterdir()) and not _is_ours(directory))):
        raise CheckpointError(f"{directory} holds something else than a recording; give a new folder")
    name, folder = find(model)
    if with_weights:
        _check_size(folder)
    loaded = load_any(model, dtype, device)
    decoder = loaded if isinstance(loaded, Decoder) else loaded.decoder
    context = -1 if isinstance(loaded, Decoder) else _image_context(folder, decoder.config.vocab_size)
    inputs = _inputs(loaded, context, seed)
    deltas = DELTAS if decoder.config.v2pe else ()
    tensors = dict(inputs)
    with torch.no_grad():
        outputs = Outputs(loaded, inputs, context, deltas)
        for tensor, _, compute in outputs.tensors():
            tensors[tensor] = compute().cpu()
            if tensor.startswith("generated_ids"):
                end = tensor.removeprefix("generated_ids")
                delta = int(end[2:]) if end else None
                tensors[f"{MARGINS}{end}"] = outputs.margins(delta, tensors[tensor])
    broken = [
        key for key, tensor in tensors.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise CheckpointError(
            f"'{broken[0]}' of {name} is not finite ({len(broken)} such tensors); nothing was recorded"
        )
    said = {
        "model": "." if with_weights else (str(folder.resolve()) if Path(model).expanduser().is_dir() else name),
        "dtype": str(decoder.embed.weight.dtype).removeprefix("torch."),
        "image_context": context,
        "deltas": list(deltas),
        "seed": seed,
        "versions": _versions(decoder.embed.weight.device),
    }
    if with_weights:
        _copy_weights(folder, loaded, directory)
    write_together(
        directory,
        {
            "README.md": _text_writer(_readme(loaded, said, tensors)),
            IO: _tensor_writer(tensors),
            DESCRIPTION: json_writer(said),
        },
    )
    return tuple(tensors)


def _inputs(model: VisionLanguageModel | Decoder, context: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    decoder = model if isinstance(model, Decoder) else model.decoder
    rows, kinds, tiles = [], [], 0
    for segments in _SEGMENTS:
        parts, types = [], []
        for segment in segments:
            if isinstance(segment, int):
                text = torch.randint(0, decoder.config.vocab_size - 1, (segment,), generator=generator)
                parts.append(text + (text >= context) if context >= 0 else text)  # any id but the pictures'
                types += [SpanKind.TEXT] * segment
            elif not isinstance(model, Decoder):
                views, spans = _picture(model, sum(segment))
                parts.append(torch.full((len(spans),), context))
                types += spans
                tiles += views
        rows.append(torch.cat(parts))
        kinds.append(torch.tensor([int(kind) for kind in types]))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    found = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.where((mask == 1) & (ids != context), ids, -100),
    }
    if not isinstance(model, Decoder):
        side = model.patches.tile
        found["pixel_values"] = torch.randn(tiles, 3, side, side, generator=generator)
    if _has_grids(model):
        found["span_types"] = torch.nn.utils.rnn.pad_sequence(kinds, batch_first=True)
    return found


def _has_grids(model: VisionLanguageModel | Decoder) -> bool:
    """Whether span types say more than ids: row ends and separators."""
    return isinstance(model, XComposer2) and model.config.views == "hd"


def _picture(model: VisionLanguageModel, tiles: int) -> tuple[int, list[SpanKind]]:
    """(views, span types of its positions) of a picture of so many tiles side by side."""
    if not _has_grids(model):
        return tiles, [SpanKind.VISUAL] * (tiles * model.tokens_per_tile)
    patches = model.patches
    policy = HDPolicy(tile=patches.tile, patch=patches.patch, limit=tiles)
    plan = plan_media(tiles * patches.tile, patches.tile, policy)
    return len(plan.tiles), [kind for kind, length in plan.spans for _ in range(length)]


def _image_context(folder: Path, vocabulary: int) -> int:
    """The id at visual positions: the template's, the native config's, or, in a folder that says neither, the last one."""
    from vedere.models.checkpoints import read_config
    from vedere.models.hf_config import image_token_of
    from vedere.text.chat import get_template
    from vedere.text.tokenizer import Tokenizer

    extras = read_config(folder).extras
    if has_tokenizer(folder):
        tokenizer = Tokenizer.load(folder)
        mark = get_template(str(extras.get("template") or "internvl2_5")).image_context
        if not tokenizer.lacks([mark]):
            return tokenizer.token_id(mark)
    native = image_token_of(folder)
    return vocabulary - 1 if native is None else native


def _is_ours(directory: Path) -> bool:
    return (directory / DESCRIPTION).is_file()


def _weights(folder: Path) -> list[Path]:
    kept = (
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "tokenizer*",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
    )
    return sorted({path for pattern in kept for path in folder.glob(pattern) if path.name != IO})


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in _weights(folder))
    if size > MOST_WEIGHTS:
        raise CheckpointError(
            f"{folder} has {size / 1e9:.1f} GB of weights, and a recording takes at most {MOST_WEIGHTS / 1e9:.0f} GB with it; "
            "record without --with-weights and give --model where it is verified"
        )


def _copy_weights(folder: Path, model: VisionLanguageModel | Decoder, directory: Path) -> None:
    from vedere.models.checkpoints import read_config, save_model
    from vedere.models.delta import DELTA

    directory.mkdir(parents=True, exist_ok=True)
    whole = not (folder / DELTA).is_file()
    for path in _weights(folder):
        if whole or path.name.startswith(("tokenizer", "vocab", "merges")):
            shutil.copyfile(path, directory / path.name)
    if not whole:  # a delta would need its language model as well
        save_model(model, directory, extras=read_config(folder).extras)


def _versions(device: torch.device) -> dict[str, str]:
    from vedere import __version__

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"vedere": __version__, "torch": torch.__version__, "python": platform.python_version(), "device": where}


def _text_writer(text: str) -> Any:
    return lambda path: path.write_text(text, encoding="utf-8")


def _tensor_writer(tensors: dict[str, Tensor]) -> Any:
    from safetensors.torch import save_file

    return lambda path: save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _readme(model: VisionLanguageModel | Decoder, said: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in said["versions"].items())
    margins = [float(tensor.min()) for name, tensor in tensors.items() if name.startswith(MARGINS)]
    source = "the weights beside this file" if said["model"] == "." else f"`{said['model']}`"
    listed = "\n".join(f"| `{name}` | {list(tensor.shape)} | {tensor.dtype} |" for name, tensor in tensors.items())
    return f"""# Recorded outputs of {source}

`{type(model).__name__}` in {said["dtype"]}; {versions}; seed {said["seed"]}.
Check a model against them: `vedere verify THIS_FOLDER --model MODEL`.

A batch padded on the right: a row with pictures of 2 and 1 tiles, one with a picture of 1 tile, one of text (a bare
language model: text only). Visual positions hold id {said["image_context"]}; text ids are random; tiles are normal noise.
`span_types`, where a model has row ends: 0 text, 1 visual, 2 row end, 3 separator.
`labels` are not shifted, -100 is ignored. `hidden_state_K` is the input of decoder layer K (the last: after the final norm)
and `logits` belong to it; both at the text positions of all rows, one row after the other, padding left out.
`generated_ids`: {NEW_TOKENS} greedy ids after the first row, without stop ids; `margins`: distance of the two largest logits,
by their root mean square (smallest here: {min(margins):.3g}). `.dK`: with the V2PE step 1/K.

Tolerance: {TOLERANCES[said["dtype"]]:g} on the norm of the error by the norm of what is recorded (that of the coarser dtype, if
another one is verified); ids are compared up to the first that was no clear winner.

| tensor | shape | dtype |
|---|---|---|
{listed}
"""
