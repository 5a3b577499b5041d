"""What lies beside a vocabulary: `tokenizer_config.json`, `added_tokens.json`, `special_tokens_map.json`, a chat template.

Releases say the same thing in up to three places. Here they become one dictionary, in the form of `tokenizer_config.json`
with a complete ``added_tokens_decoder`` (id -> text and flags), which is also what `Tokenizer.save` writes.

* Ids come from ``added_tokens_decoder`` and from `added_tokens.json`. Where both speak they must agree.
* `added_tokens.json` has no flags. Its tokens are control tokens if ``additional_special_tokens`` of one of the other files
  lists them, or if there is no such list: a release adds tokens for its own markup.
* A token that is named without an id (``eos_token``) is an ordinary piece of the vocabulary, which the vocabulary looks up.

Cost: under a millisecond; the files are small.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError

MOST_IDS = 1 << 24  # the libraries take memory for each id up to the largest, and would end the process
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; empty if there is no such file.

    Raises:
        CheckpointError: it is damaged, or holds something else.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; fetch it again") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}; fetch it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object; fetch it again")
    return data


def text_of(token: object) -> object:
    """The string of a token that is written as a string or as an object with ``content``."""
    return token.get("content") if isinstance(token, dict) else token


def named_tokens(config: dict[str, Any]) -> tuple[str, ...]:
    """Strings that a configuration names as special: ``bos_token`` and the like, and its lists of further ones."""
    found: list[object] = [text_of(config.get(key)) for key in _NAMED]
    for key in _LISTS:
        listed = config.get(key)
        entries = listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ()
        found += [text_of(entry) for entry in entries]
    return tuple(dict.fromkeys(str(text) for text in found if _is_whole(text)))


def _is_whole(text: object) -> bool:
    """Whether this is a text that can be bytes: not empty, and without halves of surrogate pairs."""
    return isinstance(text, str) and bool(text) and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _checked(index: str, token: object, directory: Path) -> str:
    content = token.get("content") if isinstance(token, dict) else None
    if not (index.isascii() and index.isdigit() and len(index) < 10 and _is_whole(content)):
        raise CheckpointError(
            f"{directory}: added token {index[:40]!r} is {str(token)[:80]!r}; expected an id and an object with its text "
            "as 'content'; correct tokenizer_config.json or added_tokens.json"
        )
    if int(index) >= MOST_IDS:
        raise CheckpointError(
            f"{directory}: the added token {str(content)[:40]!r} has the id {index}; expected ids below {MOST_IDS}: correct "
            "tokenizer_config.json or added_tokens.json"
        )
    return str(content)


def read_side_files(directory: Path) -> dict[str, Any]:
    """Reads and joins the side files of a folder; those that are not there count as empty.

    Returns:
        `tokenizer_config.json` with what the others add. ``added_tokens_decoder`` is always there, ids as decimal strings.

    Raises:
        CheckpointError: a file is damaged, an added token has no proper id or text, or two of them contradict each other.
    """
    config = read_json(directory / "tokenizer_config.json")
    for key, value in read_json(directory / "special_tokens_map.json").items():
        config.setdefault(key, value)
    named = named_tokens(config) if any(key in config for key in _LISTS) else ()
    given = config.get("added_tokens_decoder", {})
    # What is no object is refused below like any other nonsense, under the field's own name.
    decoder: dict[str, Any] = dict(given) if isinstance(given, dict) else {"added_tokens_decoder": given}
    ids: dict[str, str] = {}
    for index, token in decoder.items():
        text = _checked(index, token, directory)
        if ids.setdefault(text, index) != index:
            raise CheckpointError(
                f"{directory}: tokenizer_config.json gives {text[:40]!r} the ids {ids[text]} and {index}; expected one id a "
                "token: remove one"
            )
    for text, number in read_json(directory / "added_tokens.json").items():
        index = str(number)
        token = {"content": text, "special": not named or text in named}
        _checked(index, token, directory)
        here = text_of(decoder.get(index))
        if ids.setdefault(text, index) != index or (here is not None and here != text):
            raise CheckpointError(
                f"{directory}: added_tokens.json gives {text[:40]!r} the id {index}, but "
                + (f"{here!r} has it" if ids[text] == index else f"it has {ids[text]} already")
                + "; expected one id a token and one token an id: fetch all files of the tokenizer from one release"
            )
        decoder.setdefault(index, token)
    template = directory / "chat_template.jinja"
    if "chat_template" not in config and template.is_file():
        try:
            config["chat_template"] = template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{template} cannot be read: {error}; fetch it again") from None
    return {**config, "added_tokens_decoder": decoder}


def write_config(config: dict[str, Any], directory: Path) -> None:
    """Writes `tokenizer_config.json`."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
