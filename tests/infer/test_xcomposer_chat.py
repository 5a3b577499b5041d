"""``vedere chat`` on folders of XComposer and XComposer2-4KHD as they lie on the hub: tokens, order, batches, partial LoRA."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import tiny_xcomposer
import tiny_xcomposer2
from vedere.cli import main
from vedere.infer.prompts import Question
from vedere.infer.session import Session, load
from vedere.models.checkpoints import save_model
from vedere.models.low_rank import LowRank
from vedere.plan import HDPolicy, SpanKind, plan_media
from vedere.text.tokenizer import Tokenizer


def page(width: int, height: int, text: str = "page") -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((width // 8, height // 3), text, "black")
    return image


@pytest.fixture(scope="module")
def four_k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_xcomposer2.folder(tmp_path_factory.mktemp("4khd"), vocab_size=600)  # turn markers as pieces


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_xcomposer.folder(tmp_path_factory.mktemp("xcomposer"))


@pytest.fixture(scope="module")
def session(four_k: Path) -> Session:
    return load(four_k, hd_num=6, device="cpu")


def chat(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(["chat", *argv, "--json", "--max-new-tokens", "5"]) == 0
    out, _ = capsys.readouterr()
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_the_command_answers_about_a_page_at_every_limit(
    four_k: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page(300, 140).save(tmp_path / "page.png")
    told = []
    for limit in (1, 9, 25):
        answer = chat(capsys, str(tmp_path / "page.png"), "What is it?", "--model", str(four_k), "--hd-num", str(limit))
        plan = plan_media(300, 140, HDPolicy(tile=56, limit=limit))
        assert answer["media"][0]["tokens"] == plan.tokens
        assert answer["media"][0]["grid"] == list(plan.grid)
        assert answer["media"][0]["tiles"] == 1 + plan.grid[0] * plan.grid[1]
        assert answer["prompt_tokens"] > plan.tokens
        assert answer["answer_tokens"] == 5 or answer["reason"] == "stop"
        told.append(answer["prompt_tokens"] - plan.tokens)
    assert len(set(told)) == 1  # the text is the same


def test_the_command_answers_from_the_first_xcomposer(
    first: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, size in (("a.png", (90, 40)), ("b.png", (30, 70))):
        page(*size).save(tmp_path / name)
    one = chat(capsys, str(tmp_path / "a.png"), "What is it?", "--model", str(first))
    two = chat(capsys, str(tmp_path / "a.png"), str(tmp_path / "b.png"), "What is it?", "--model", str(first))
    assert [medium["tokens"] for medium in two["media"]] == [tiny_xcomposer.TOKENS] * 2
    assert two["prompt_tokens"] == one["prompt_tokens"] + tiny_xcomposer.TOKENS


def test_the_prompt_of_the_first_xcomposer_is_its_layout(first: Path) -> None:
    """``<s> <|User|>:`` picture, question, end of turn, `` <|Bot|>:``; the pieces tokenised one by one."""
    session = load(first, device="cpu")
    request = session.prompts.make(Question(text="Is it red?", images=[page(50, 50)])).request
    tokenizer, assembled = session.prompts.tokenizer, []
    for text in (" <|User|>:", None, "Is it red?", "\n<TOKENS_UNUSED_0> <|Bot|>:"):
        assembled += [-1] * tiny_xcomposer.TOKENS if text is None else list(tokenizer.encode(text))
    assert request.span_types is not None
    ids = [-1 if kind else int(token) for token, kind in zip(request.ids, request.span_types, strict=True)]
    assert ids == [1, *assembled]
    stops = {tokenizer.token_id(f"<TOKENS_UNUSED_{number}>") for number in (0, 1)}
    assert stops <= set(request.sampling.stop_ids)


def test_names_behind_the_last_row_are_text(four_k: Path, session: Session, tmp_path: Path) -> None:
    """Added tokens of another family, which the release's tokenizer may name, have no row; the model loads without them."""
    shutil.copytree(four_k, tmp_path / "named")
    (tmp_path / "named" / "added_tokens.json").write_text(json.dumps({"<|begin|>": 600, "<|end|>": 601}))
    assert Tokenizer.load(tmp_path / "named").vocab_size == 602
    named = load(tmp_path / "named", hd_num=6, device="cpu")
    assert named.prompts.tokenizer.vocab_size == 600
    asked = "Is <|begin|> a token?"
    plain, found = (one.chat(asked, max_new_tokens=4) for one in (session, named))
    assert found.logprobs == plain.logprobs
    assert found.prompt_tokens == plain.prompt_tokens


def test_an_untagged_picture_of_4khd_stands_before_all_text(session: Session) -> None:
    request = session.prompts.make(Question(text="Is it red?", images=[page(300, 200)])).request
    text = session.prompts.make(Question(text="Is it red?")).request
    tokens = plan_media(300, 200, HDPolicy(tile=56, limit=6)).tokens
    assert request.span_types is not None
    assert [int(kind) for kind in request.span_types[: tokens + 2]].count(int(SpanKind.TEXT)) == 2  # bos, first text
    assert request.ids[0] == text.ids[0] == 1
    assert request.ids[tokens + 1 :].tolist() == text.ids[1:].tolist()


@pytest.mark.parametrize("which", ["four_k", "first"])
def test_a_batch_answers_as_one_by_one(which: str, request: pytest.FixtureRequest) -> None:
    """Different pages, several pictures and none, in one batch: the same tokens, probabilities within float noise."""
    limit = 6 if which == "four_k" else None
    session = load(request.getfixturevalue(which), hd_num=limit, device="cpu", weights="stored")
    session.model.float()
    asked = [
        Question(text="What is it?", images=[page(300, 200)], max_new_tokens=4),
        Question(text="<image> <image> Same?", images=[page(90, 200), page(500, 60)], max_new_tokens=4),
        Question(text="Hello!", max_new_tokens=4),
        Question(text="Is it red?", images=[page(57, 56)], max_new_tokens=4),
    ]
    together = session.chat_many(asked)
    for question, reply in zip(asked, together, strict=True):
        (alone,) = session.chat_many([question])
        assert reply.text == alone.text
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_pictures_of_two_turns_keep_their_grids(session: Session) -> None:
    before = session.chat("<image> What is it?", [page(300, 200)], max_new_tokens=3)
    after = session.chat("<image> And this?", [page(60, 200)], history=[before], max_new_tokens=3)
    assert [plan.grid for plan in after.plans] == [(3, 2), (1, 3)]


def test_answers_about_text_do_not_know_the_partial_lora(
    four_k: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law of the partial adapter, end to end: it sees the image tokens of the prompt and nothing else."""
    rows: list[int] = []
    original = LowRank.add_to

    def counted(self: LowRank, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return original(self, out, x)

    monkeypatch.setattr(LowRank, "add_to", counted)
    with_picture = session.chat("What is it?", [page(300, 200)], max_new_tokens=4)
    maps = 4 * session.model.decoder.config.layers  # type: ignore[union-attr]
    tokens = with_picture.plans[0].tokens
    assert sum(rows[0::maps]) == tokens  # the first map, over the chunks of the prompt; none while answering
    assert max(rows) <= tokens
    rows.clear()
    about_text = session.chat("Hello!", max_new_tokens=4)
    assert not rows
    other = load(four_k, hd_num=6, device="cpu")
    for part in other.model.modules():
        if isinstance(part, LowRank):
            torch.nn.init.constant_(part.lora_B, 0.7)
    assert other.chat("Hello!", max_new_tokens=4).logprobs == about_text.logprobs
    assert other.chat("What is it?", [page(300, 200)], max_new_tokens=4).logprobs != with_picture.logprobs


def test_a_model_saved_from_python_is_asked_by_its_shape(first: Path, tmp_path: Path) -> None:
    loaded = load(first, device="cpu")
    save_model(loaded.model, tmp_path, extras={"template": "ixc1", "system_message": "none"})
    shutil.copy(first / "tokenizer.model", tmp_path)
    again = load(tmp_path, device="cpu")
    policies = [each.prompts.policy for each in (loaded, again)]
    assert policies[0] == policies[1]
    asked = ("What is it?", [page(90, 60)])
    expected = loaded.chat(*asked, max_new_tokens=3).logprobs
    assert again.chat(*asked, max_new_tokens=3).logprobs == pytest.approx(expected, abs=1e-4)
