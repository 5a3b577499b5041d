"""Fields of a foreign config.json, read one by one: of the right kind, within sane limits, or refused by name."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from vedere.errors import CheckpointError, ConfigError

LARGEST = sys.float_info.max  # integers of JSON have no end
MOST_LAYERS, WIDEST = 1024, 1 << 24  # a damaged config must not make anyone build a billion layers


def check_count(what: str, number: int) -> None:
    """Refuses a stack or a mixture that nobody builds, before anyone counts its tensors one by one.

    Args:
        what: Its name in the config.
        number: Layers or members.

    Raises:
        ConfigError: fewer than 1 or more than `MOST_LAYERS`.
    """
    if not 1 <= number <= MOST_LAYERS:
        raise ConfigError(f"{what} is {number}; expected 1 to {MOST_LAYERS}; correct the config")


class Fields:
    """Reads fields of one JSON object and says which object and file a bad one was in.

    Args:
        data: The object, as JSON gave it.
        where: Name of the file.
        name: Name of the object inside; empty for the whole file.

    Raises:
        CheckpointError: ``data`` is no object.
    """

    def __init__(self, data: Any, where: str, name: str) -> None:
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{where}: '{name}' is missing or no object; download config.json again")
        self.data, self.where, self.name = data, where, name

    def fail(self, key: str, expected: str) -> CheckpointError:
        """The error of a field: what it is, what was expected, what to change."""
        given = repr(self.data[key]) if key in self.data else "missing"
        place = f"{self.name}.{key}" if self.name else key
        return CheckpointError(
            f"{self.where}: '{place}' is {given}; expected {expected}; correct {PurePath(self.where).name}"
        )

    def size(self, key: str, default: int | None = None, most: int = WIDEST) -> int:
        """An integer from 1 to ``most``; a field that is missing or null takes the default."""
        value = self.data.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fail(key, f"an integer from 1 to {most}")
        return value

    def number(self, key: str, default: float, most: float = LARGEST) -> float:
        """A positive finite number, up to ``most``."""
        value = self.data.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= most:
            raise self.fail(key, "a positive number" + ("" if most == LARGEST else f" up to {most:g}"))
        return float(value)

    def inner(self, key: str) -> Fields:
        """An object inside; empty where it is missing or null.

        Raises:
            CheckpointError: it is something else.
        """
        value = self.data.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.fail(key, "an object or null")
        return Fields(value or {}, self.where, f"{self.name}.{key}".lstrip("."))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def only(self, key: str, allowed: Collection[Any], default: Any) -> Any:
        """One of the allowed values."""
        value = self.data.get(key, default)
        if value not in allowed:
            raise self.fail(key, "one of " + ", ".join(map(repr, allowed)))
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts, also where the file has one text."""
        value = self.data.get(key) or []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive finite numbers."""
        values = self.data.get(key)
        if not isinstance(values, list) or len(values) > WIDEST:
            raise self.fail(key, "a list of positive numbers")
        if any(not isinstance(v, (int, float)) or isinstance(v, bool) or not 0 < v <= LARGEST for v in values):
            raise self.fail(key, "a list of positive numbers")
        return tuple(float(value) for value in values)
