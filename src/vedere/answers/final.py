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
    start = response.rfind(_BOX)
    while start >= 0:
        depth, place = 1, start + len(_BOX)
        for end in range(place, len(response)):
            depth += {"{": 1, "}": -1}.get(response[end], 0)
            if not depth:
                return _TEXT.sub(r"\1", response[place:end]).strip().strip("$").strip()
        start = response.rfind(_BOX, 0, start)
    return final_line(response)


FINAL_RULES: Mapping[str, Callable[[str], str]] = {"final line": final_line, "boxed": boxed_answer}
"""Name of a rule -> the rule; prompt sets that ask for reasoning name the one that goes with them."""
