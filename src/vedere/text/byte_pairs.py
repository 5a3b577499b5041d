"""Byte-level BPE: vocabularies in `tokenizer.json` and inside GGUF files, run by the `tokenizers` library.

GPT-2's scheme: text becomes UTF-8 bytes, each byte one of 256 printable characters, pairs are merged. What a GGUF file
keeps (tokens, their types, merges, the name of the pre-tokenizer) is turned back into the tokenizer that it was made
from. The name matters: "smollm" splits digits off one by one before GPT-2's rule, so a space before a digit stays a
token of its own; readers that ignore it give other ids for text with numbers.
Converted sentencepiece vocabularies (``▁`` for a space, ``<0xE4>`` for a byte) come as `tokenizer.json` too.

Tokens that only a side file names (`vedere.text.side_files`) are added at their ids. The library gives added tokens the
next free id whatever a file says; here every id is compared, because a token at another id is another row of the model.

Cost: about 0.2 s to build from a GGUF file with 49,152 tokens; some tens of microseconds to encode a question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError, ConfigError
from vedere.text.gguf_header import read_gguf_header
from vedere.text.side_files import MOST_IDS, named_tokens, read_json, read_side_files, write_config

_CONTROL, _USER_DEFINED = 3, 4  # GGUF token types
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: printable Latin-1 stands for itself, the rest follows from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    alphabet = {chr(byte): byte for byte in printable}
    hidden = (byte for byte in range(256) if byte not in printable)
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(hidden)})
    return alphabet


BYTE_OF = _byte_alphabet()


class BytePairs:
    """A `tokenizers.Tokenizer` seen as ids and bytes.

    Attributes:
        size: One more than the largest id.
        added: Added strings (control tokens and the like) to their ids.
        special: Ids that `decode` leaves out by default.
        bos: Id that the tokenizer itself puts in front of a text, if any.
        strips_first_space: Decoding drops one leading space (sentencepiece's dummy prefix).
    """

    def __init__(self, inner: Any, last: int, decoder: dict[str, Any], origin: str, config: dict[str, Any]) -> None:
        """Wraps a library tokenizer.

        Args:
            inner: Of the `tokenizers` library.
            last: The largest id of its vocabulary, added tokens apart (the library would take 0.3 s to say it).
            decoder: Its decoder, as `tokenizer.json` writes it.
            origin: File, for messages.
            config: As `read_side_files` gives it; empty where there are no side files.
        """
        inner = _with_side_tokens(inner, last, config, origin)
        inner.no_truncation()  # a file keeps the limits of whoever saved it
        inner.no_padding()
        self.inner = inner
        self._last = last
        self._decoder = decoder
        self._origin = origin
        self._config = config
        added = inner.get_added_tokens_decoder()
        self.size = max([last, *added]) + 1
        if self.size > MOST_IDS:  # the library would take memory for each id up to it, and end the process
            raise CheckpointError(
                f"{origin} gives a token the id {self.size - 1}; expected ids below {MOST_IDS}: the file is damaged, fetch "
                "it again"
            )
        steps = decoder.get("decoders", [decoder])
        kinds = {step.get("type") for step in steps}
        if "ByteLevel" in kinds:
            self._pieces = False
            self.strips_first_space = False
        elif kinds & {"ByteFallback", "Metaspace"} or any(step.get("pattern") == {"String": "▁"} for step in steps):
            self._pieces = True
            self.strips_first_space = any(
                (step.get("type") == "Strip" and step.get("start", 0) > 0)
                or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
                for step in steps
            )
        else:
            raise ConfigError(
                f"the tokenizer of {origin} has a decoder of kind {sorted(map(str, kinds))}; expected a byte-level one "
                "(GPT-2, Qwen, SmolLM) or a sentencepiece one (Llama, InternLM, Phi)"
            )
        self.added = {token.content: index for index, token in added.items()}
        self.special = frozenset(index for index, token in added.items() if token.special) | _special(
            config, self.added
        )
        self._added_bytes: dict[int, bytes] = {index: token.content.encode("utf-8") for index, token in added.items()}
        bare, dressed = inner.encode("a", add_special_tokens=False).ids, inner.encode("a").ids
        self.bos = dressed[0] if dressed[:1] != bare[:1] and dressed else None

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, added strings recognised, nothing put around."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def bytes_of(self, index: int) -> bytes:
        """What an id stands for; nothing for an id that the vocabulary does not hold."""
        if index in self._added_bytes:
            return self._added_bytes[index]
        piece: str | None = self.inner.id_to_token(index) if 0 <= index < self.size else None  # else it overflows
        if piece is None:
            return b""
        if self._pieces:
            byte = _BYTE_PIECE.fullmatch(piece)
            return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode("utf-8")
        try:
            return bytes([BYTE_OF[character] for character in piece])
        except KeyError:
            return piece.encode("utf-8")

    def with_tokens(self, texts: Sequence[str]) -> BytePairs:
        """The same vocabulary with control tokens at the ids from ``size`` on."""
        from tokenizers import AddedToken, Tokenizer

        inner = Tokenizer.from_str(self.inner.to_str())
        inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in texts])
        return BytePairs(inner, self._last, self._decoder, self._origin, self._config)

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.json``, and ``tokenizer_config.json`` if there was one."""
        self.inner.save(str(directory / "tokenizer.json"))
        if self._config:
            added = self.inner.get_added_tokens_decoder()
            decoder = {str(index): _entry(token) for index, token in sorted(added.items())}
            write_config({**self._config, "added_tokens_decoder": decoder}, directory)


_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def _special(config: dict[str, Any], added: dict[str, int]) -> frozenset[int]:
    """Added tokens that a side file calls special, whatever `tokenizer.json` says of them."""
    decoder: dict[str, dict[str, Any]] = config.get("added_tokens_decoder", {})
    named = {*named_tokens(config), *(token["content"] for token in decoder.values() if token.get("special"))}
    return frozenset(added[text] for text in named if text in added)


def _entry(token: Any) -> dict[str, Any]:
    """An added token as `tokenizer_config.json` writes it."""
    return {"content": token.content, **{flag: bool(getattr(token, flag)) for flag in _FLAGS}}


def guarded(build: Callable[[], Any], fail: Callable[[BaseException], CheckpointError]) -> Any:
    """What ``build`` makes; the library's failures, its panics included, as the error that ``fail`` makes of them."""
    try:
        return build()
    except Exception as error:  # the library raises bare Exception
        raise fail(error) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the Rust side; it cannot be imported
            raise
        raise fail(error) from None


def _with_side_tokens(inner: Any, last: int, config: dict[str, Any], origin: str) -> Any:
    """The tokenizer with the tokens of ``added_tokens_decoder`` at their ids, and its named tokens recognised in text."""
    from tokenizers import AddedToken

    decoder: dict[str, dict[str, Any]] = config.get("added_tokens_decoder", {})
    wanted = {token["content"]: int(index) for index, token in decoder.items()}
    known = {token.content for token in inner.get_added_tokens_decoder().values()}
    new = []
    for text, index in sorted(wanted.items(), key=lambda pair: pair[1]):
        have, there = inner.token_to_id(text), inner.id_to_token(index)
        if (have is not None and have != index) or (have is None and there is not None):
            raise CheckpointError(
                f"{origin}: its side files give the added token {text[:40]!r} the id {index}, but "
                + (f"the vocabulary has it at {have}" if have is not None else f"{there[:40]!r} has that id")
                + "; expected the same ids in all files: fetch all files of the tokenizer from one release"
            )
        if text not in known:
            token = decoder[str(index)]
            flags = {flag: bool(token[flag]) for flag in _FLAGS if flag in token}
            new.append(AddedToken(text, **{"normalized": not flags.get("special", False), **flags}))
    for text in named_tokens(config):
        if text not in known and text not in wanted and inner.token_to_id(text) is not None:
            new.append(AddedToken(text, special=True, normalized=False))
    if not new:
        return inner
    last = max([last, *inner.get_added_tokens_decoder()])
    inner = _with_room(inner, last, {token.content: wanted[token.content] for token in new if token.content in wanted})
    inner.add_tokens(new)
    for text, index in wanted.items():
        if inner.token_to_id(text) != index:
            raise CheckpointError(
                f"{origin}: the added token {text[:40]!r} with the id {index} cannot be added to its vocabulary; fetch all "
                "files of the tokenizer from one release"
            )
    return inner


def _with_room(inner: Any, last: int, wanted: dict[str, int]) -> Any:
    """The tokenizer with entries for tokens that do not follow its last id: the library would move them down to it."""
    from tokenizers import Tokenizer

    apart = {}
    for text, index in sorted(wanted.items(), key=lambda pair: pair[1]):
        if inner.token_to_id(text) is None and index != last + 1:
            apart[text] = index
        last = max(last, index)
    if not apart:
        return inner
    data = json.loads(inner.to_str())
    data["model"]["vocab"].update(apart)
    return Tokenizer.from_str(json.dumps(data))


def load_tokenizer_json(directory: Path) -> BytePairs:
    """Reads a `tokenizer.json` and, where they exist, the side files.

    Raises:
        CheckpointError: a file is damaged, or they do not belong together.
        ConfigError: a kind of tokenizer that vedere does not decode.
    """
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"

    def fail(error: BaseException) -> CheckpointError:
        return CheckpointError(f"{path} is not a readable tokenizer file: {error}; fetch it again")

    inner = guarded(lambda: Tokenizer.from_file(str(path)), fail)
    data = read_json(path)
    for token in data.get("added_tokens") or ():
        text, index = token["content"], token["id"]
        if inner.token_to_id(text) != index:
            raise CheckpointError(
                f"{path} gives the added token {text[:40]!r} the id {index}, where its vocabulary has no such place (it would "
                f"become {inner.token_to_id(text)}); the file is damaged, fetch it again"
            )
    vocab = data["model"]["vocab"]
    last = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1  # a list: Unigram
    return BytePairs(inner, last, data.get("decoder") or {}, str(path), read_side_files(directory))


def load_gguf(path: Path) -> BytePairs:
    """Builds the tokenizer that a GGUF file describes.

    Raises:
        CheckpointError: not a GGUF file, or one without a usable vocabulary.
        ConfigError: a vocabulary or pre-tokenizer of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    header = read_gguf_header(path, ("tokenizer.ggml.",))
    fields = {key.removeprefix("tokenizer.ggml."): value for key, value in header.items()}
    missing = [key for key in ("model", "tokens", "token_type", "merges") if key not in fields]
    if missing:
        raise CheckpointError(
            f"{path} has no tokenizer.ggml.{missing[0]}; expected a GGUF language model with a BPE vocabulary"
        )
    kind = (fields["model"], fields.get("pre", "gpt-2"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=bool(fields.get("add_space_prefix", False)), use_regex=True)
    splits = {
        ("gpt2", "gpt-2"): byte_level,
        ("gpt2", "smollm"): pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
    }
    if kind not in splits:
        raise ConfigError(
            f"{path} has a vocabulary of kind {kind[0]!r} with pre-tokenizer {kind[1]!r}; expected 'gpt2' with 'smollm' "
            "or 'gpt-2'; use a model directory with tokenizer.json instead"
        )
    tokens, types = fields["tokens"], fields["token_type"]
    if len(tokens) != len(types):
        raise CheckpointError(f"{path} lists {len(tokens)} tokens but {len(types)} token types; expected as many")
    try:
        merges = [tuple(merge.split(" ", 1)) for merge in fields["merges"]]
        inner = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} holds a BPE vocabulary that does not fit its merges: {error}") from None
    inner.pre_tokenizer = splits[kind]
    inner.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=token_type == _CONTROL, normalized=False)
        for token, token_type in zip(tokens, types, strict=True)
        if token_type in (_CONTROL, _USER_DEFINED)
    ]
    inner.add_tokens(added)
    bos = fields.get("bos_token_id")
    if fields.get("add_bos_token", False) and bos is not None:
        if not 0 <= bos < len(tokens):
            raise CheckpointError(f"{path} names bos id {bos} in a vocabulary of {len(tokens)} tokens; fetch it again")
        inner.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return BytePairs(inner, len(tokens) - 1, {"type": "ByteLevel"}, str(path), {})
