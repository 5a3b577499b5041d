"""Who answered: a local model by the SHA-256 of its weights, a model behind an API by its name and address.

Addresses lose what could be a secret (user, password, query). What only says how patiently a model is asked (retries,
time-outs, connections) is not part of an answer's key; how it is drawn is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from inspect_ai.model import GenerateConfig, Model

from vedere.evals.inspect_provider import VedereAPI

_PATIENCE = frozenset(
    (
        *(
            "max_retries",
            "timeout",
            "attempt_timeout",
            "stream_idle_timeout",
            "max_connections",
            "adaptive_connections",
        ),
        *("cache", "batch"),
    )
)


async def identity(model: Model) -> dict[str, str]:
    """Returns the model's name, and its weights' SHA-256 or its address."""
    if isinstance(model.api, VedereAPI):
        return {"model": str(model), "sha256": await model.api.sha256()}
    address = urlsplit(model.api.base_url or "")
    place = f"{address.hostname}:{address.port or ''}{address.path}".rstrip("/") if address.hostname else ""
    return {"model": str(model), **({"endpoint": place} if place else {})}


def drawn(config: GenerateConfig) -> dict[str, Any]:
    """Returns what of a config an answer depends on."""
    given: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in given.items() if name not in _PATIENCE}


def nameless(media: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what media are known by: their content, whatever the files are called."""
    return [{name: value for name, value in one.items() if name != "name"} for one in media]
