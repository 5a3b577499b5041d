"""One tokenizer face over byte-level BPE and sentencepiece.

`decode` and the streaming decoder work on bytes: each id stands for some bytes, and text is their UTF-8 reading with
U+FFFD for what is not UTF-8. So a stream can be cut anywhere, inside a character too, and the parts join to exactly
what `decode` gives for all ids.

Nothing is ever added to a text here: where a bos belongs is the template's business (`vedere.text.render`).
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vedere.config import nearest
from vedere.errors import CheckpointError, ConfigError, PromptError

# One of them makes a folder a tokenizer's; the first counts.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
# Of what `Tokenizer.save` writes: goes into the names of cached folders. 2: tokens and rules of the side files are kept.
VOCABULARY_VERSION = b"vocabulary 2"
_CACHED_LENGTH = 256  # longer texts hardly repeat
_CACHED_TEXTS = 4096


class Vocabulary(Protocol):
    """What `Tokenizer` needs of a vocabulary; see `BytePairs` and `SentencePieces`."""

    size: int
    added: dict[str, int]
    special: frozenset[int]
    bos: int | None
    strips_first_space: bool

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def bytes_of(self, index: int) -> bytes:
        """Bytes of an id."""

    def with_tokens(self, texts: Sequence[str]) -> Vocabulary:
        """The same vocabulary with control tokens at the ids that follow."""

    def save(self, directory: Path) -> None:
        """Writes the vocabulary's files."""


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Wraps a vocabulary; use `load` or `from_gguf`."""
        self._vocabulary = vocabulary
        self._remember()

    def _remember(self) -> None:
        self._array = functools.lru_cache(maxsize=_CACHED_TEXTS)(self._encode_array)
        self._bytes = functools.lru_cache(maxsize=None)(self._vocabulary.bytes_of)

    def __getstate__(self) -> dict[str, Any]:
        """Without the caches: they are rebuilt in the worker that receives the tokenizer."""
        return {"_vocabulary": self._vocabulary}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the vocabulary with empty caches."""
        self._vocabulary = state["_vocabulary"]
        self._remember()

    @classmethod
    def load(cls, directory: Path | str) -> Tokenizer:
        """Reads a model directory: `tokenizer.json`, else `vocab.json` and `merges.txt`, else `tokenizer.model`.

        Added tokens and the rules of a family come from the side files (`vedere.text.side_files`).

        Raises:
            CheckpointError: none of these files is there, a file is damaged, or they do not belong together.
            ConfigError: a kind of tokenizer that vedere does not decode.
        """
        directory = Path(directory)
        if (directory / "tokenizer.json").is_file():
            from vedere.text.byte_pairs import load_tokenizer_json

            return cls(load_tokenizer_json(directory))
        if (directory / "vocab.json").is_file():
            from vedere.text.vocab_merges import load_vocab_and_merges

            return cls(load_vocab_and_merges(directory))
        if (directory / "tokenizer.model").is_file():
            from vedere.text.sentence_pieces import load_sentence_pieces

            return cls(load_sentence_pieces(directory))
        found = (
            ", ".join(sorted(p.name for p in directory.iterdir())[:12]) if directory.is_dir() else "no such directory"
        )
        raise CheckpointError(
            f"no tokenizer in {directory} (it holds: {found or 'nothing'}); expected tokenizer.json or tokenizer.model, "
            "or vocab.json with merges.txt"
        )

    @classmethod
    def from_gguf(cls, path: Path | str) -> Tokenizer:
        """Builds the tokenizer inside a GGUF file; its tensors are not read.

        Raises:
            CheckpointError: not a GGUF file, or one without a usable vocabulary.
            ConfigError: a vocabulary or pre-tokenizer of another kind.
        """
        from vedere.text.byte_pairs import load_gguf

        return cls(load_gguf(Path(path)))

    def save(self, directory: Path | str) -> None:
        """Writes files into ``directory`` (made if missing) that `load` reads back."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._vocabulary.save(directory)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id; an embedding table may have more rows."""
        return self._vocabulary.size

    @property
    def bos_id(self) -> int | None:
        """The id that this tokenizer wants in front of a text, or None."""
        return self._vocabulary.bos

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens: `decode` leaves them out by default."""
        return self._vocabulary.special

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``: special strings are recognised, nothing is added.

        Raises:
            PromptError: it is no text, or holds half of a surrogate pair, which no vocabulary can read.
        """
        if not isinstance(text, str):
            raise PromptError(f"text of type {type(text).__name__} was given; expected a string")
        try:
            return self._vocabulary.encode(text)
        except (TypeError, RuntimeError):  # of the libraries, in words of their own
            half = next((place for place, sign in enumerate(text) if "\ud800" <= sign <= "\udfff"), None)
            if half is None:
                raise
            raise PromptError(
                f"the text holds half of a surrogate pair at character {half}; expected whole characters: decode it again"
            ) from None

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Ids of ``text`` with the text of each; only for text whose tokens do not cut a character."""
        return [(index, self._bytes(index).decode("utf-8", "replace")) for index in self.encode(text)]

    def _encode_array(self, text: str) -> np.ndarray:
        ids = np.array(self.encode(text), dtype=np.int64)
        ids.setflags(write=False)  # shared between callers
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as a read-only int64 array [T]; short texts are remembered."""
        return self._array(text) if len(text) <= _CACHED_LENGTH else self._encode_array(text)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ``ids``; bytes that are not UTF-8 become U+FFFD.

        Args:
            ids: Token ids; ids outside the vocabulary stand for nothing.
            skip_special: Leave control tokens out.
        """
        stream = self.stream(skip_special)
        return stream.push_all(ids) + stream.flush()

    def stream(self, skip_special: bool = True) -> StreamDecoder:
        """A decoder for ids that come one by one."""
        skipped = self._vocabulary.special if skip_special else frozenset[int]()
        return StreamDecoder(self._bytes, skipped, self._vocabulary.strips_first_space)

    def token_id(self, text: str) -> int:
        """The one id of ``text``: a special string, or text that is a single token.

        Raises:
            ConfigError: ``text`` is not one token; names the nearest special string.
        """
        index = self._id(text)
        if index is None:
            raise ConfigError(
                f"{text!r} is not one token of this vocabulary ({self.vocab_size} tokens) but {len(self.encode(text))}"
                f"{nearest(text, self._vocabulary.added)}; use a tokenizer that holds it or another template"
            )
        return index

    def _id(self, text: str) -> int | None:
        if text in self._vocabulary.added:
            return self._vocabulary.added[text]
        ids = self.encode(text)
        if len(ids) == 1 and self._bytes(ids[0]).decode("utf-8", "replace").removeprefix(" ") == text.removeprefix(" "):
            return ids[0]
        return None

    def lacks(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Those of ``texts`` that are not one token, each once."""
        return tuple(dict.fromkeys(text for text in texts if self._id(text) is None))

    def below(self, rows: int) -> Tokenizer:
        """Without the added tokens that a model of so many rows has no embedding for.

        The tokenizers of the XComposer line may name tokens of another family behind their last row; nothing of theirs
        writes them. Pieces are never dropped, and tokenizers of other kinds stay as they are.
        """
        from vedere.text.sentence_pieces import SentencePieces

        if self.vocab_size <= rows or not isinstance(self._vocabulary, SentencePieces):
            return self
        return Tokenizer(self._vocabulary.below(rows))

    def with_tokens(self, texts: Sequence[str]) -> Tokenizer:
        """This tokenizer with ``texts`` as control tokens at the ids from `vocab_size` on; old ids stay as they are."""
        return Tokenizer(self._vocabulary.with_tokens(texts))


class StreamDecoder:
    """Incremental `Tokenizer.decode`: what has come out so far never changes."""

    def __init__(self, bytes_of: Any, skipped: frozenset[int], strip: bool) -> None:
        """Made by `Tokenizer.stream`."""
        self._bytes_of = bytes_of
        self._skipped = skipped
        self._strip = strip
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push_all(self, ids: Iterable[int]) -> str:
        """Takes several ids, returns the text that is now certain."""
        skipped, bytes_of = self._skipped, self._bytes_of
        raw = b"".join([bytes_of(int(index)) for index in ids if index not in skipped])
        if self._strip and raw:
            self._strip = False
            raw = raw.removeprefix(b" ")
        return self._utf8.decode(raw)

    def push(self, index: int) -> str:
        """Takes one id, returns the text that is now certain: empty inside a character."""
        return self.push_all((index,))

    def flush(self) -> str:
        """Ends the stream: an unfinished character becomes U+FFFD."""
        return self._utf8.decode(b"", final=True)
