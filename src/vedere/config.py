"""Strict configs: frozen dataclasses in, JSON out, and back.

A config is a frozen keyword-only dataclass that stands beside the class it configures. This module adds the three
things that plain dataclasses lack: unknown keys are refused with the nearest valid name, values are checked against
their annotations (pydantic's `TypeAdapter`, no schema language of our own), and the JSON form round-trips.
Command lines are made from the same dataclasses by tyro (`vedere.cli`), so there is one description of every option.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vedere.errors import ConfigError

T = TypeVar("T")


def _make_adapter(cls: type) -> Any:
    from pydantic import TypeAdapter  # 0.1 s: only where configs meet JSON

    return TypeAdapter(cls)


_adapter: Any = functools.cache(_make_adapter)


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """Returns ``; did you mean 'x'?`` for the valid name nearest to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_ranges(config: object, **least: float) -> None:
    """Refuses fields of a config below their least value, NaN included.

    Raises:
        ConfigError: names the first such field, its value and the least.
    """
    for name, bound in least.items():
        if not getattr(config, name) >= bound:
            raise ConfigError(f"{name} {getattr(config, name)}; expected at least {bound}")


def _dataclasses_in(annotation: Any) -> list[type]:
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _dataclasses_in(argument)]


def _check_keys(cls: type, data: Any, where: str) -> None:
    """Refuses keys that no field of ``cls`` has, at any depth, before types are looked at."""
    if not isinstance(data, Mapping):
        return
    hints = typing.get_type_hints(cls)
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            valid = ", ".join(sorted(hints))
            raise ConfigError(
                f"unknown key '{path}' for {cls.__name__}{nearest(str(key), hints)} (valid keys: {valid})"
            )
        inner = _dataclasses_in(hints[key])
        if len(inner) == 1:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                _check_keys(inner[0], item, path)


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Builds a config from plain data.

    Raises:
        ConfigError: an unknown key (with the nearest valid name) or a value of the wrong kind (with its place).
    """
    from pydantic import ValidationError

    _check_keys(cls, data, "")
    try:
        return typing.cast(T, _adapter(cls).validate_python(dict(data)))
    except ValidationError as error:
        places = "; ".join(
            f"'{'.'.join(map(str, e['loc']))}': {e['msg']} (given: {e['input']!r})" for e in error.errors()
        )
        raise ConfigError(f"{cls.__name__} does not accept {places}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The plain-data form of a config; ``from_dict(type(config), to_dict(config)) == config``."""
    return typing.cast(dict[str, Any], _adapter(type(config)).dump_python(config, mode="json"))


def load(cls: type[T], path: Path | str) -> T:
    """Reads a config from a JSON file.

    Raises:
        ConfigError: the file is missing, is not JSON, or does not fit ``cls``.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file at {path}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds a JSON {type(data).__name__}; expected an object with the keys of {cls.__name__}"
        )
    return from_dict(cls, data)


def save(config: Any, path: Path | str) -> None:
    """Writes a config as indented JSON."""
    Path(path).write_text(json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def override(config: T, changes: Mapping[str, Any]) -> T:
    """A copy of ``config`` with dotted keys replaced: ``{"optim.lr": 1e-4}``.

    Raises:
        ConfigError: a key that does not exist (with the nearest valid name) or a value of the wrong kind.
    """
    data = to_dict(config)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        node = data
        for depth, parent in enumerate(parents):
            if not isinstance(node.get(parent), dict):
                valid = [key for key, inner in node.items() if isinstance(inner, dict)]
                place = ".".join(parents[: depth + 1])
                raise ConfigError(f"unknown group '{place}' in '{dotted}'{nearest(parent, valid)} (groups: {valid})")
            node = node[parent]
        if leaf not in node:
            raise ConfigError(f"unknown key '{dotted}'{nearest(leaf, node)} (valid keys: {', '.join(sorted(node))})")
        node[leaf] = value
    return from_dict(type(config), data)
