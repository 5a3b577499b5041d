"""Sentencepiece vocabularies (`tokenizer.model`): InternLM, InternLM2, XComposer, Llama, Phi-3.

The pieces come from the `sentencepiece` library. Around it stand the rules of the originals' slow tokenizers, which exist as
Python code only:

* Added tokens and control pieces are cut out of the text first: at each place the longest, from left to right. What lies
  between is encoded run by run. An added token may swallow white space beside it (``lstrip`` / ``rstrip``: Phi-3's role markers
  do) or count only as a word of its own (``single_word``).
* **InternLM2** (and XComposer, InternLM, and InternLM3 of InternVL3-9B, whose class calls the library alone): each run is
  encoded as the model file says. InternLM2's file asks for no dummy prefix, so no space is put before a run and none is taken
  from the decoded text.
* **Llama with** ``legacy: true`` (and files that do not say): the same, where the file asks for a dummy prefix, so each run
  gets one; decoding drops the first.
* **Llama with** ``legacy: false`` (Phi-3 of InternVL2-4B): one space before the whole text and none before later runs; a text
  that begins with a token which the configuration names (``bos_token``, ``additional_special_tokens``) gets none. Phi-3's role
  markers are added tokens but not named, so a prompt begins with a lone space.

The originals' InternLM2 decoder also deletes the space before ``. , ! ?`` and ``n't``. That is not done: the answer is what
the model said, and a stream could not take it back.

Cost: 0.05 s to load 92,544 pieces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError
from vedere.text.side_files import named_tokens, read_side_files, text_of, write_config

_LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer")
_RESERVED = re.compile("unused|reserved|placeholder", re.IGNORECASE)
# A later copy of a field of a protobuf message is joined to the earlier: normalizer_spec { add_dummy_prefix: false }.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
_NORMALIZER = 3


class SentencePieces:
    """A sentencepiece model with added tokens, seen as ids and bytes.

    Attributes:
        size: One more than the largest id.
        added: Added strings and control pieces to their ids.
        special: Ids that `decode` leaves out by default.
        bos: Id that goes in front of a text, if the configuration asks for one.
        strips_first_space: A space is put before every text, so decoding drops one.
    """

    def __init__(self, proto: bytes, config: dict[str, Any], origin: str) -> None:
        """Wraps a model file and a configuration as `read_side_files` gives it."""
        import sentencepiece

        self._proto = proto
        self._config = config
        self._origin = origin
        if _NORMALIZER not in _fields(proto):
            raise CheckpointError(f"{origin} is not a sentencepiece model, or it is truncated; fetch it again")
        model = sentencepiece.SentencePieceProcessor()
        try:
            model.LoadFromSerializedProto(proto)
        except Exception as error:  # RuntimeError or a plain Exception, by version
            raise CheckpointError(f"{origin} is not a sentencepiece model: {error}; fetch it again") from None
        self._model = model
        self._read_tokens()
        begin = text_of(config.get("bos_token", "<s>"))
        if begin is not None and not isinstance(begin, str):
            raise CheckpointError(
                f"{origin}: 'bos_token' of its tokenizer_config.json is {str(begin)[:80]}; expected a string: correct it"
            )
        own = int(model.bos_id())
        self.bos: int | None = None
        if config.get("add_bos_token", True) and begin is not None and (begin in self.added or own >= 0):
            self.bos = self.added.get(begin, own)
        probe = model.encode("a", out_type=str)
        self.strips_first_space = bool(probe) and probe[0].startswith("▁")
        self._first_only = (
            self.strips_first_space
            and config.get("legacy") is False
            and str(config.get("tokenizer_class", "LlamaTokenizer")) in _LLAMA
        )
        if self._first_only:
            model.LoadFromSerializedProto(proto + _NO_DUMMY_PREFIX)
            self.strips_first_space = config.get("add_prefix_space") is not False
            self._guard = "<unk>"
            self._guard_length = len(model.encode(self._guard))
            self._space = model.piece_to_id("▁")

    def _read_tokens(self) -> None:
        """Added strings, their flags, and the pattern that cuts them out."""
        model, config, origin = self._model, self._config, self._origin
        pieces = range(model.get_piece_size())
        try:
            unknown = model.unk_id()
            self.added = {model.id_to_piece(i): i for i in pieces if i == unknown or model.is_control(i)}
            for text in named_tokens(config):
                index = model.piece_to_id(text)
                if (
                    model.id_to_piece(index) == text
                ):  # else it is no piece, and the library answers with the unknown one
                    self.added[text] = index
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{origin} has a piece that is not UTF-8 ({error.reason}); fetch it again") from None
        special = set(self.added.values())
        self._flags: dict[str, tuple[bool, bool, bool]] = {}
        names = {index: text for text, index in self.added.items()}
        for number, token in config.get("added_tokens_decoder", {}).items():
            index, text = int(number), token["content"]
            if index in pieces:
                self._check_piece(index, text)
            self.added[text] = index
            names[index] = text  # an added name replaces the reserved piece's own
            self._flags[text] = (bool(token.get("lstrip")), bool(token.get("rstrip")), bool(token.get("single_word")))
            special.discard(index)
            if token.get("special", False):
                special.add(index)
        self.special = frozenset(special)
        self._named = {self.added[text] for text in named_tokens(config) if text in self.added}
        self._name = {index: text.encode("utf-8") for index, text in names.items()}
        self.size = max([model.get_piece_size() - 1, *self.added.values()]) + 1
        parts = map(re.escape, sorted(self.added, key=len, reverse=True))
        self._cut = re.compile(f"({'|'.join(parts)})") if self.added else None

    def _check_piece(self, index: int, text: str) -> None:
        """Refuses an added token in the place of a piece that text needs; reserved pieces are there to be replaced."""
        piece = self._model.id_to_piece(index)
        if piece == text or self._model.is_control(index) or self._model.is_unknown(index):
            return
        if self._model.is_unused(index) or _RESERVED.search(piece):
            return
        raise CheckpointError(
            f"{self._origin}: the added token {text[:40]!r} has the id {index}, which is that of the piece {piece[:40]!r}; "
            "expected an id of its own or of a reserved piece: fetch all files of the tokenizer from one release"
        )

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, added strings recognised, nothing put around."""
        if self._first_only and text:
            text = text.replace("▁", " ")
            if self.strips_first_space:
                text = "▁" + text
        runs = self._cut.split(text) if self._cut is not None else [text]
        for place in range(1, len(runs), 2):
            self._trim(runs, place)
        ids: list[int] = []
        for place, run in enumerate(runs):
            if place % 2 and run:
                ids.append(self.added[run])
            elif run:
                ids.extend(self._encode_run(run))
        if self._first_only and len(ids) > 1 and ids[0] == self._space and ids[1] in self._named:
            ids = ids[1:]  # the prefix stands alone before a named token
        return ids

    def _trim(self, runs: list[str], place: int) -> None:
        """Applies the flags of the added token at an odd place to its neighbours."""
        left, right, whole_word = self._flags.get(runs[place], (False, False, False))
        if right:
            runs[place + 1] = runs[place + 1].lstrip()
        if left:
            runs[place - 1] = runs[place - 1].rstrip()
        if whole_word and runs[place - 1] and not runs[place - 1].endswith(" "):
            runs[place - 1] += runs[place]
            runs[place] = ""
        elif whole_word and runs[place + 1] and not runs[place + 1].startswith(" "):
            runs[place + 1] = runs[place] + runs[place + 1]
            runs[place] = ""

    def _encode_run(self, run: str) -> list[int]:
        if self._first_only and run.startswith(("▁", " ")):
            # Behind another text the library keeps every leading space.
            return list(self._model.encode(self._guard + run)[self._guard_length :])
        return list(self._model.encode(run))

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

    def below(self, rows: int) -> SentencePieces:
        """The same model without the added tokens from id ``rows`` on, whose text is then cut into pieces like any other."""
        known: dict[str, Any] = self._config.get("added_tokens_decoder", {})
        kept = {index: token for index, token in known.items() if int(index) < rows}
        return SentencePieces(self._proto, {**self._config, "added_tokens_decoder": kept}, self._origin)

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.model`` and ``tokenizer_config.json``."""
        (directory / "tokenizer.model").write_bytes(self._proto)
        write_config(self._config, directory)


def _fields(proto: bytes) -> set[int]:
    """Numbers of the top-level fields of a model file; empty if a field runs past the end.

    The library reads a file that was cut between two fields as if the rest were at its defaults.
    """
    found, at = set(), 0
    try:
        while at < len(proto):
            tag, at = _varint(proto, at)
            found.add(tag >> 3)
            if tag & 7 != 2:  # all fields of a model are messages
                return set()
            length, at = _varint(proto, at)
            at += length
    except IndexError:
        return set()
    return found if at == len(proto) else set()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:
            return value, at
        shift += 7


def load_sentence_pieces(directory: Path) -> SentencePieces:
    """Reads `tokenizer.model` and, where they exist, the side files.

    Raises:
        CheckpointError: a file is damaged, or they do not belong together.
    """
    config = read_side_files(directory)
    path = directory / "tokenizer.model"
    return SentencePieces(path.read_bytes(), config, str(path))
