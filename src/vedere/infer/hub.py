"""``ORG/NAME`` to a folder: the local hub cache first, then a download of weights, configs and tokenizer, never of code.

The cache is huggingface_hub's own, so what other programs fetched is found. A snapshot counts when it is complete: config.json
and every shard of the index; what an interrupted download left is named and fetched. A complete one is taken without asking
the network, so the same command gives the same model tomorrow (``revision`` names another one). ``HF_HUB_OFFLINE``,
``HF_HOME``, ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they mean everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from vedere.errors import CheckpointError, ConfigError
from vedere.models.shards import INDEX, WEIGHTS

Say = Callable[[str], None]
PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
_NEVER = ("*.py", "*.bin", "*/*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def looks_like_a_hub_name(name: str) -> bool:
    """Whether a text is ``ORG/NAME`` and no path."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def missing_files(folder: Path) -> list[str]:
    """What a snapshot lacks to be a model; empty where it is complete.

    Raises:
        CheckpointError: an index that is none.
    """
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    if (folder / INDEX).is_file():
        try:
            names = sorted(
                {str(file) for file in json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()}
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{folder / INDEX} is no index of shards ({type(error).__name__}); delete the snapshot and load it again"
            ) from None
        return lacking + [name for name in names if not (folder / name).is_file()]
    return lacking if (folder / WEIGHTS).is_file() else [*lacking, WEIGHTS]


def cached(name: str, revision: str | None = None) -> Path | None:
    """The snapshot of a model in the local hub cache, complete or not; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", INDEX, WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def fetch(name: str, revision: str | None = None, say: Say = print) -> Path:
    """The folder of a model of the hub.

    Args:
        name: ``ORG/NAME``.
        revision: Branch, tag or commit; None is the main branch.
        say: Receives a line before a download.

    Raises:
        CheckpointError: offline and not (or not completely) in the cache; gated, unknown, unreachable or interrupted; or a
            model without safetensors.
        ConfigError: no such revision.
    """
    from huggingface_hub import constants

    folder = cached(name, revision)
    lacking = missing_files(folder) if folder is not None else []
    if folder is not None and not lacking:
        return folder
    state = (
        f"the snapshot {folder} in the hub cache is incomplete: {', '.join(lacking[:4])}"
        f"{f' and {len(lacking) - 4} more' if len(lacking) > 4 else ''} missing (an interrupted download)"
        if folder is not None
        else f"it is not in the hub cache ({constants.HF_HUB_CACHE})"
    )
    at = f"'{name}'" + (f" at revision '{revision}'" if revision else "")
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"model {at} cannot be downloaded because HF_HUB_OFFLINE is set, and {state}; unset it, or copy the model into the "
            "cache or give its folder"
        )
    say(f"downloading {at} from {constants.ENDPOINT} into {constants.HF_HUB_CACHE} ({state})")
    folder = _download(name, revision, at)
    lacking = missing_files(folder)
    if lacking:
        hint = (
            " Its weights may be pickled: download them by hand and run 'vedere convert'." if WEIGHTS in lacking else ""
        )
        raise CheckpointError(
            f"{at} on the hub is no model that vedere can load: {', '.join(lacking[:4])} missing.{hint}"
        )
    return folder


def _download(name: str, revision: str | None, at: str) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS), ignore_patterns=list(_NEVER))
        )
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{at} is gated: its owners ask for an agreement. Accept it on {constants.ENDPOINT}/{name}, then log in: "
            "'hf auth login', or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"model '{name}' has no revision '{revision}'; give a branch, tag or commit of it") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"the hub ({constants.ENDPOINT}) has no model {at}, or it is private; check the spelling, or log in: 'hf auth "
            "login', or set HF_TOKEN. A folder of that name is not here either"
        ) from None
    except errors.HFValidationError as error:
        raise ConfigError(f"{at} is no name of the hub ({error}); expected ORG/NAME") from None
    except (OSError, errors.LocalEntryNotFoundError) as error:  # no network, a broken connection, a full disk
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"download of {at} failed ({type(error).__name__}: {line}); the files that are complete stay in "
            f"{constants.HF_HUB_CACHE}, run the same command again to go on"
        ) from None
