"""``vedere convert SOURCE OUT``: a run or a model folder as something that loads, ships, or fits the original names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vedere.cli.output import note, print_json
from vedere.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from vedere.models.delta import DeltaReport

_BESIDE = (  # of a folder's files, what belongs to the tokenizer and to generation; the rest is written anew or is code
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def convert(
    source: Path,
    out: Path,
    /,
    *,
    layout: Literal["delta", "adapter", "vedere", "original", "hf"] = "vedere",
    bits: Literal[4, 8] = 4,
    dtype: Literal["bf16", "fp32", "fp16"] | None = None,
    image_token: int | None = None,
    json: bool = False,
) -> int:
    """Writes a model in another form.

    ``delta`` keeps only what training added to a frozen language model, quantised; ``adapter`` only the LoRA of a run, in
    peft's form; ``vedere`` is the whole model with
    its tokenizer; ``original`` is the same under the names and config of the released code; ``hf`` under those of
    transformers, with all that its processor reads. Tensors are rearranged, never rounded, unless a dtype says so. Old
    pickled weights become safetensors.

    Args:
        source: Directory of a run (its newest checkpoint is taken), or folder of a model.
        out: Target folder.
        layout: Form of the result.
        bits: Of a delta's codes.
        dtype: Of whole models; by default bf16 for a run, and as stored for a folder (XComposer's files of several dtypes:
            the one that their config.json names).
        image_token: With hf: id of the token that stands for a picture, for a folder without a tokenizer.
        json: Print one JSON object.

    Returns:
        Exit status.
    """
    import torch

    from vedere.train.export import export_adapter, export_delta, export_model, load_run

    if image_token is not None and layout != "hf":
        raise ConfigError(f"--image-token belongs to --layout hf, not to {layout}; leave it out")
    number = {None: None, "bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}[dtype]
    report: DeltaReport | None = None
    if (source / "checkpoints").is_dir():
        trained = load_run(source, note)
        if layout == "delta":
            report = export_delta(trained, out, bits)
        elif layout == "adapter":
            export_adapter(trained, out)
        elif layout == "hf":
            raise ConfigError(
                f"{source} is a run of Mono-InternVL, which transformers has no class for; use original or vedere"
            )
        else:
            export_model(trained, out, number or torch.bfloat16, layout)
    elif layout == "delta":
        raise ConfigError(f"{source} is no run directory; a delta is made from a run: vedere convert runs/NAME {out}")
    elif layout == "adapter":
        raise ConfigError(
            f"{source} is no run directory; an adapter is made from a run: vedere convert runs/NAME {out}"
        )
    else:
        _convert_folder(source, out, layout, number, image_token)
    facts: dict[str, Any] = {"source": str(source), "out": str(out), "layout": layout}
    if report is not None:
        facts |= {"bytes": report.bytes, "worst_relative_error": round(report.worst, 4)}
    if json:
        print_json(facts)
    else:
        note(", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def _convert_folder(
    source: Path,
    out: Path,
    layout: Literal["vedere", "original", "hf"],
    dtype: torch.dtype | None,
    image_token: int | None,
) -> None:
    """One whole model as another; the tokenizer's files go along as they are, the processor's are made for the layout."""
    from vedere.atomic import write_together
    from vedere.infer.hf_processor import HF_FILES, hf_files, original_preprocessor
    from vedere.infer.prompts import policy_from
    from vedere.models.checkpoints import load_model, model_config, read_config, save_model
    from vedere.models.decoder import DecoderConfig
    from vedere.models.hf_config import is_native
    from vedere.models.kept_files import KEPT_FILES, files_before, remembered
    from vedere.models.vision_language import VisionLanguageModel
    from vedere.models.xcomposer import XComposerConfig
    from vedere.text.chat import get_template
    from vedere.text.side_files import read_json
    from vedere.text.tokenizer import TOKENIZER_FILES, Tokenizer

    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"source and target are the same folder, {source}; choose another target")
    model = load_model(source, dtype)
    read, shape = read_config(source), model_config(model)
    extras = dict(read.extras)
    beside = {name: (source / name).read_bytes() for name in _BESIDE if (source / name).is_file()}
    before = files_before(source, HF_FILES, extras.get(KEPT_FILES) or {})
    now = files_before(source, HF_FILES, {})
    returns = not is_native(read) or KEPT_FILES in extras  # else these files are the native folder's own
    if (layout == "original" and returns) or (layout == "vedere" and not is_native(read)):
        beside = {name: content for name, content in beside.items() if name not in HF_FILES}
        beside |= {name: text.encode() for name, text in before.items() if text is not None}
    if layout == "original":
        extras.pop(KEPT_FILES, None)
    if isinstance(model, VisionLanguageModel) and not isinstance(shape, DecoderConfig):
        patches = model.patches
        if layout == "hf" and any(name in beside for name in TOKENIZER_FILES):
            tokenizer = Tokenizer.load(source)
            template = get_template(str(extras.get("template") or "internvl2_5"))
            policy = policy_from(extras, patches.tile, patches.patch, patches.downsample)
            written = hf_files(source, tokenizer, template, policy, patches, shape.decoder.max_positions)
            image_token = tokenizer.token_id(template.image_context) if image_token is None else image_token
            beside |= {name: text.encode() for name, text in written.items()}
            if returns:
                extras[KEPT_FILES] = remembered(before, written)
        elif layout == "hf" and read.layout == "hf":
            beside |= {name: text.encode() for name, text in now.items() if text is not None}
        elif layout == "original" and not isinstance(shape, XComposerConfig):  # whose code knows its pixels itself
            beside.setdefault("preprocessor_config.json", original_preprocessor(patches).encode())
    save_model(model, out, layout=layout, extras=extras, image_token=image_token)
    for name in set(HF_FILES) - set(beside):
        (out / name).unlink(missing_ok=True)  # of an earlier conversion into this folder
    if beside:
        write_together(out, {name: _bytes_writer(content) for name, content in beside.items()})
    if layout == "hf" and "image_token_id" not in read_json(out / "config.json"):
        note(
            f"no tokenizer in {source}, and its vocabulary has the size of none of the released ones: "
            "config.json does not say which token stands for a picture. The weights are whole; before transformers sees "
            "pictures, give --image-token ID, or put the tokenizer's files into the folder and convert again"
        )


def _bytes_writer(content: bytes) -> Callable[[Path], None]:
    return lambda path: _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def main(argv: list[str]) -> int:
    """Runs the command with these arguments; returns its exit status."""
    import tyro

    return tyro.cli(convert, args=argv, prog="vedere convert", config=(tyro.conf.FlagCreatePairsOff,))
