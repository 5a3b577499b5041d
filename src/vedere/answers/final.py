r"""The final answer of a response that reasons first: what stands before it is no part of the answer.

InternVL's evaluation asks for step-by-step reasoning in two forms: a line ``Final answer: ..`` (InternVL2.5-MPO and InternVL3,
arXiv 2504.10479) and a last line ``Answer: \boxed{...}``. The scorers' rules for letters and words then read the final answer
alone. A response without one is left whole, so that the rules of the benchmark decide.

Cost: linear in the response's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TOLD = re.compile(r"(?i)answer:(.*)")
_BOX = r"\boxed{"
_BRACE = re.compile(r"\\boxed\{|[{}]")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}")


def final_line(response: str) -> str:
    """Return what follows the first ``Final answer:`` or ``Answer:``, in any case, to the end of that line.

    The whole response where neither is there.
    """
    found = _TOLD.search(response)
    return found[1].strip() if found else response


def boxed_answer(response: str) -> str:
    r"""Return what the last ``\boxed{...}`` holds, its braces in pairs, without ``\text{}`` around words.

    Without a box that is closed, what `final_line` returns.
    """
    opened: list[int] = []  # where what is in a pair of braces begins; -1 for braces of no box
    boxes: list[tuple[int, int]] = []
    for found in _BRACE.finditer(response):
        if found[0] != "}":
            opened.append(found.end() if found[0] == _BOX else -1)
        elif opened and (start := opened.pop()) >= 0:
            boxes.append((start, found.start()))
    if not boxes:
        return final_line(response)
    start, end = max(boxes)
    return _TEXT.sub(r"\1", response[start:end]).strip().strip("$").strip()


FINAL_RULES: Mapping[str, Callable[[str], str]] = {"final line": final_line, "boxed": boxed_answer}
"""Name of a rule -> the rule; prompt sets that ask for reasoning name the one that goes with them."""
