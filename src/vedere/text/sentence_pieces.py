"""Sentencepiece vocabularies (`tokenizer.model`): InternLM, InternLM2, XComposer, Llama, Phi-3.

The pieces come from the `sentencepiece` library. Around it, as the originals' slow tokenizers do: strings that were
added later (`added_tokens.json`, ``added_tokens_decoder`` of `tokenizer_config.json`) and control pieces are cut out
of the text first, longest first, and what lies between is encoded run by run. An added token may swallow the white
space beside it (``lstrip`` / ``rstrip``: Phi-3's role markers do).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError


def _read_json(path: Path) -> dict[str, Any]:
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


class SentencePieces:
    """A sentencepiece model with added tokens, seen as ids and bytes.

    Attributes:
        size: One more than the largest id.
        added: Added strings and control pieces to their ids.
        special: Ids that `decode` leaves out by default.
        bos: Id that goes in front of a text, if the configuration asks for one.
        strips_first_space: The model puts a space before every text, so decoding drops one.
    """

    def __init__(self, proto: bytes, config: dict[str, Any], origin: str) -> None:
        import sentencepiece

        self._proto = proto
        self._config = config
        self._origin = origin
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(proto)
        except Exception as error:  # RuntimeError or a plain Exception, by version
            raise CheckpointError(f"{origin} is not a sentencepiece model: {error}; fetch it again") from None
        model = self._model
        pieces = range(model.get_piece_size())
        try:
            self.added = {model.id_to_piece(i): i for i in pieces if model.is_control(i)}
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{origin} has a piece that is not UTF-8 ({error.reason}); fetch it again") from None
        special = set(self.added.values())
        strips: dict[str, tuple[bool, bool]] = {}
        for index, token in config.get("added_tokens_decoder", {}).items():
            self.added[token["content"]] = int(index)
            strips[token["content"]] = (bool(token.get("lstrip")), bool(token.get("rstrip")))
            if token.get("special", False):
                special.add(int(index))
        self.special = frozenset(special)
        self._name = {index: text.encode("utf-8") for text, index in self.added.items()}
        # The later entry wins in _name: an added name replaces the reserved piece's own.
        self.size = max([model.get_piece_size() - 1, *self.added.values()]) + 1
        begin = config.get("bos_token", "<s>")
        begin = begin.get("content") if isinstance(begin, dict) else begin
        if begin is not None and not isinstance(begin, str):
            raise CheckpointError(
                f"{origin}: 'bos_token' of its tokenizer_config.json is {str(begin)[:80]}; expected a string: correct it"
            )
        wants = config.get("add_bos_token", True) and begin is not None
        own = int(model.bos_id())
        self.bos: int | None = None
        if wants and (begin in self.added or own >= 0):
            self.bos = self.added.get(str(begin), own)
        probe = model.encode("a", out_type=str)
        self.strips_first_space = bool(probe) and probe[0].startswith("▁")
        parts = []
        for text in sorted(self.added, key=len, reverse=True):
            left, right = strips.get(text, (False, False))
            parts.append((r"\s*" if left else "") + re.escape(text) + (r"\s*" if right else ""))
        self._cut = re.compile(f"({'|'.join(parts)})") if parts else None

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, added strings recognised, nothing put around."""
        if self._cut is None:
            return list(self._model.encode(text))
        ids: list[int] = []
        for place, run in enumerate(self._cut.split(text)):
            if place % 2:
                ids.append(self.added[run] if run in self.added else self.added[run.strip()])
            elif run:
                ids.extend(self._model.encode(run))
        return ids

    def bytes_of(self, index: int) -> bytes:
        """What an id stands for; nothing for an id that the vocabulary does not hold."""
        if index in self._name:
            return self._name[index]
        if not 0 <= index < self._model.get_piece_size():
            return b""
        piece: str = self._model.id_to_piece(index)
        if self._model.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode("utf-8")

    def with_tokens(self, texts: Sequence[str]) -> SentencePieces:
        """The same model with control tokens at the ids from ``size`` on."""
        known: dict[str, Any] = self._config.get("added_tokens_decoder", {})
        new = {str(self.size + place): {"content": text, "special": True} for place, text in enumerate(texts)}
        return SentencePieces(self._proto, {**self._config, "added_tokens_decoder": known | new}, self._origin)

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.model`` and ``tokenizer_config.json``."""
        (directory / "tokenizer.model").write_bytes(self._proto)
        text = json.dumps(self._config, indent=2, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _is_whole(text: object) -> bool:
    """Whether this is a text that can be bytes: not empty, and without halves of surrogate pairs."""
    return isinstance(text, str) and bool(text) and not any("\ud800" <= sign <= "\udfff" for sign in text)


def load_sentence_pieces(directory: Path) -> SentencePieces:
    """Reads `tokenizer.model` and, where they exist, `added_tokens.json` and `tokenizer_config.json`.

    Raises:
        CheckpointError: a file is damaged.
    """
    config = _read_json(directory / "tokenizer_config.json")
    added = config.get("added_tokens_decoder", {})
    decoder = dict(added) if isinstance(added, dict) else {"added_tokens_decoder": added}
    for text, index in _read_json(directory / "added_tokens.json").items():
        # Names without flags: tokens that a release added for its own markup, so control tokens.
        decoder.setdefault(str(index), {"content": text, "special": True})
    for index, token in decoder.items():
        content = token.get("content") if isinstance(token, dict) else None
        if not (index.isascii() and index.isdigit() and len(index) < 10 and _is_whole(content)):
            raise CheckpointError(
                f"{directory}: added token {index[:40]!r} is {str(token)[:80]!r}; expected an id and an object with its text "
                "as 'content'; correct tokenizer_config.json or added_tokens.json"
            )
    path = directory / "tokenizer.model"
    return SentencePieces(path.read_bytes(), {**config, "added_tokens_decoder": decoder}, str(path))
