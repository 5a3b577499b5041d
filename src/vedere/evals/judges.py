"""What judge models are asked, and how their replies are read: options, yes or no, MM-Vet, LLaVA-Bench in the wild, MathVista.

The wording is our own, so a judged figure is comparable only with figures of the same judge under the same rules version; the
log names both. A reply that cannot be read (garbage, a refusal) is asked for again, then the row is left as rules alone leave
it, or gets the lowest grade where a grade is needed, and is counted.

Cost: one question to the judge for each row that rules do not settle.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vedere.answers import grade_pair, kit_choice, kit_yes_no, option_letter, quick_extraction, unit_grade
from vedere.evals.choice import options_in
from vedere.evals.items import Prompt
from vedere.evals.records import Row

LONGEST = 8000
"""Characters of an answer that a judge sees: the first and the last half of them."""


def shortened(text: str) -> str:
    """Returns a text of at most about `LONGEST` characters, its middle left out."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}\n[...]\n{text[-half:]}"


@dataclass(frozen=True, kw_only=True)
class _Judge(abc.ABC):
    """What the judges have in common; see `vedere.evals.items.Judge`.

    Attributes:
        tries: Times that a reply which cannot be read is asked for.
        required: Without a judge model the benchmark cannot be run.
        fallback: Fields of a record whose judge gave nothing readable; empty leaves it to the rules.
    """

    tries: int = 3
    required: bool = False
    fallback: Mapping[str, Any] = field(default_factory=dict)

    @abc.abstractmethod
    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """As `Judge.ask`."""

    @abc.abstractmethod
    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """As `Judge.read`."""

    def unread(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Judge.unread`."""
        return dict(self.fallback)


@dataclass(frozen=True, kw_only=True)
class ChoiceJudge(_Judge):
    """Which option an answer means, where rules find none.

    Attributes:
        options: Record -> its options.
    """

    options: Callable[[Row], Mapping[str, str]] = options_in

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question, for an answer that rules leave open."""
        row = Row(1, record)
        options = self.options(row)
        if kit_choice(row.answer(), options) is not None or not row.answer().strip():
            return None
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        text = (
            "Somebody answered a multiple-choice question in their own words. Say which option the answer means. Reply with "
            "that option's letter alone, or with Z if the answer means none of them or several.\n\n"
            f"Question: {record.get('question', '')}\n{listed}\n\nAnswer: {shortened(row.answer())}\n\nLetter:"
        )
        return Prompt(parts=(text,), max_new_tokens=16)

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the letter."""
        letters = "".join(self.options(Row(1, record)))
        letter = option_letter(reply, letters + ("" if "Z" in letters else "Z"))
        return None if letter is None else {"judge_letter": letter}


@dataclass(frozen=True, kw_only=True)
class YesNoJudge(_Judge):
    """Whether an answer means yes or no, where it has neither word or both (HallusionBench)."""

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question, for an answer that the words yes and no leave open."""
        answer = Row(1, record).answer()
        if kit_yes_no(answer) is not None or not answer.strip():
            return None
        text = (
            "Somebody answered a yes-or-no question in their own words. Say whether the answer means yes or no. Reply with "
            "Yes, No, or Unknown if it means neither, alone.\n\n"
            f"Question: {record.get('question', '')}\n\nAnswer: {shortened(answer)}\n\nMeaning:"
        )
        return Prompt(parts=(text,), max_new_tokens=16)

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the verdict; ``unknown`` counts as wrong."""
        words = reply.strip().strip("*.").lower()
        verdict = "unknown" if words == "unknown" else kit_yes_no(reply)
        return None if verdict is None else {"judge_verdict": verdict}


@dataclass(frozen=True, kw_only=True)
class GradeJudge(_Judge):
    """A grade from 0 to 1 (MM-Vet); 0 where none can be read, as the official script gives after its tries."""

    tries: int = 5
    required: bool = True
    fallback: Mapping[str, Any] = field(default_factory=lambda: {"scores": [0.0]})

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question about every answer."""
        text = (
            "Grade an answer to a question about a picture that you do not see, by the reference answer. In the reference "
            "<AND> joins what all has to be said, <OR> what may stand for each other. 1 is completely right, 0 completely "
            "wrong, tenths are for parts. Reply with the number alone.\n\n"
            "Question: What is x? | Reference: -1 <AND> -5 | Answer: x = 3 | Grade: 0.0\n"
            "Question: What is x? | Reference: -1 <AND> -5 | Answer: x = -1 | Grade: 0.5\n"
            "Question: What is x? | Reference: -1 <AND> -5 | Answer: x = -5 or x = -1 | Grade: 1.0\n\n"
            f"Question: {record['question']} | Reference: {record['answer']} | "
            f"Answer: {shortened(Row(1, record).answer())} | Grade:"
        )
        return Prompt(parts=(text,), max_new_tokens=16)

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the grade: the number that the reply begins with, after "Grade:" or not."""
        grade = unit_grade(reply)
        return None if grade is None else {"scores": [grade]}


@dataclass(frozen=True, kw_only=True)
class PairJudge(_Judge):
    """Two grades from 1 to 10, of the reference answer and of the model's (LLaVA-Bench in the wild).

    Where none can be read, nothing is added to either sum.
    """

    required: bool = True
    fallback: Mapping[str, Any] = field(default_factory=lambda: {"scores": [0.0, 0.0]})

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question about every answer."""
        text = (
            "Two assistants answered a question about a picture, which a text describes to you. Grade each answer from 1 to 10 "
            "for helpfulness, relevance, accuracy and detail. Begin your reply with a line of the two numbers alone, separated "
            "by a blank, the first assistant's first. The order of the assistants must not matter.\n\n"
            f"[Picture]\n{record['caption']}\n\n[Question]\n{record['question']}\n\n"
            f"[Assistant 1]\n{record['reference']}\n\n[Assistant 2]\n{shortened(Row(1, record).answer())}\n"
        )
        return Prompt(parts=(text,), max_new_tokens=512)

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the two grades of the first line."""
        grades = grade_pair(reply)
        return None if grades is None else {"scores": list(grades)}


@dataclass(frozen=True, kw_only=True)
class ExtractionJudge(_Judge):
    """The short answer in a long one (MathVista)."""

    def ask(self, record: Mapping[str, Any]) -> Prompt | None:
        """Returns the question, for an answer that needs reading."""
        answer = Row(1, record).answer()
        if not answer.strip():
            return None
        if quick_extraction(answer, record.get("choices") or [], record["answer_type"]) is not None:
            return None
        text = (
            "Extract the final answer from a response to a question. Reply with the answer alone: the text of a choice, a "
            "number, or a list, as the question's hint asks for it. Reply with nothing else.\n\n"
            f"Question: {record['question']}\n\nResponse: {shortened(answer)}\n\nFinal answer:"
        )
        return Prompt(parts=(text,), max_new_tokens=64)

    def read(self, reply: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the reply, if it is one short line."""
        text = reply.strip()
        return {"extraction": text} if text and "\n" not in text and len(text) <= 200 else None
