"""Vocabularies shared by the tests of this room."""

import pytest
from small_vocabularies import train_pieces, train_raw
from tokenizers import Tokenizer as RawTokenizer

from vedere.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def raw() -> RawTokenizer:
    """The peer: a byte-level BPE of the `tokenizers` library."""
    return train_raw()


@pytest.fixture(scope="session")
def tokenizer(raw: RawTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("bpe")
    raw.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def piece_model() -> bytes:
    """Used as InternLM2's is: no dummy prefix, reserved symbols inside."""
    return train_pieces(
        vocab_size=420,
        user_defined_symbols=["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
    )
