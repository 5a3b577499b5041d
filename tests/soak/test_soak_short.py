"""A short soak in the normal test run: the law of bad input over all families, and a killed training that resumes."""

import json
import math
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEED = 7
COUNTS = {"pictures": 300, "videos": 120, "records": 250, "prompts": 250, "checkpoints": 200}
COUNTS |= {"subtitles": 200, "tables": 150, "answers": 200}


@pytest.fixture(autouse=True)
def _workers_find_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent.parent / 'src'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_damaged_inputs_work_or_are_refused_by_name(tmp_path: Path) -> None:
    from overseer import Soak

    soak = Soak(seed=SEED, keep=tmp_path)
    soak.run(COUNTS)
    shown = [(found["input"], found["kind"], found["place"], found["message"]) for found in soak.findings]
    assert not shown, f"repeat one with: {sys.executable} tests/soak/run.py --seed {SEED} --case FAMILY NUMBER"
    for family, count in COUNTS.items():
        tally = soak.tallies[family]
        assert tally.worked + tally.refused == count
        assert min(tally.worked, tally.refused) > count / 20, "one verdict only: the damage is too weak or too strong"


def test_a_killed_training_ends_with_the_losses_of_an_uninterrupted_one(tmp_path: Path) -> None:
    from kills import soak_kills

    result = soak_kills(tmp_path, kills=3, seed=SEED, steps=8, fresh=False)
    assert result["problems"] == []
    assert result["kills"] >= 3
    assert result["metrics_lines_compared"] > 16


def test_killed_evaluations_end_with_the_figures_of_uninterrupted_ones(tmp_path: Path) -> None:
    from evaluation_kills import soak_evaluations

    result = soak_evaluations(tmp_path, kills=2, seed=SEED)
    assert result["problems"] == []
    assert result["kills"] >= 2


def _run(folder: Path, loss: float, weights: bytes = b"w", seconds: float = 1.0) -> Path:
    """What a finished run leaves, as far as the comparison looks."""
    last = folder / "checkpoints" / "step-00000002"
    last.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        (last / name).write_bytes(weights)
    lines = [{"step": 1, "loss": 0.5, "seconds": seconds}, {"step": 2, "loss": loss, "seconds": seconds}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_the_comparison_sees_one_bit_of_a_loss_and_of_a_weight_but_no_time(tmp_path: Path) -> None:
    from kills import compare

    reference = _run(tmp_path / "reference", 0.25)
    assert compare(_run(tmp_path / "slower", 0.25, seconds=9.0), reference) == []
    (problem,) = compare(_run(tmp_path / "loss", math.nextafter(0.25, 1)), reference)
    assert problem.startswith("metrics differ: 2 lines, expected 2; line 1: ")
    assert len(compare(_run(tmp_path / "weights", 0.25, b"v"), reference)) == 3


@pytest.mark.parametrize(
    ("body", "verdict", "kind"),
    [
        ("pass", "worked", ""),
        ("raise MediaError('given is no picture')", "refused", ""),
        ("raise MediaError('no picture')", "finding", "the message names none"),
        ("raise KeyError('given')", "finding", "another exception"),
        ("law(False, 'given')", "finding", "a law is broken"),
    ],
)
def test_the_judge_tells_refusals_from_findings(body: str, verdict: str, kind: str) -> None:
    from cases import Case, judge, law

    from vedere.errors import MediaError

    def run() -> None:
        exec(body, {"MediaError": MediaError, "law": law})

    result = judge(Case(what="test", names=("given",), run=run))
    assert result["verdict"] == verdict
    assert result.get("kind", "").startswith(kind)


@pytest.mark.parametrize("expect", ["works", "refused"])
def test_the_judge_holds_inputs_to_what_is_known_of_them(expect: str) -> None:
    from cases import Case, judge

    from vedere.errors import MediaError

    def run() -> None:
        if expect == "works":
            raise MediaError("given is fine, but refused")

    result = judge(Case(what="test", names=("given",), run=run, expect=expect))
    assert result["verdict"] == "finding"
    assert result["kind"] == ("a good input is refused" if expect == "works" else "a bad input is accepted")


@pytest.mark.parametrize("way", ["abort", "spin", "grow"])
def test_the_overseer_survives_the_death_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    import cases
    import overseer

    body = {
        "abort": "import os; os.abort()",
        "spin": "signal.setitimer(signal.ITIMER_PROF, 0.05)\n        while True: pass",
        "grow": "self.held = bytearray(b'x') * (1400 << 20)",
    }[way]
    (tmp_path / "dying_inputs.py").write_text(
        "import signal\n"
        "from cases import Case\n"
        "class Dying:\n"
        "    def case(self, rng, folder):\n"
        "        self.number = int(folder.parent.joinpath('n').read_text() if folder.parent.joinpath('n').exists() else 0)\n"
        "        folder.parent.joinpath('n').write_text(str(self.number + 1))\n"
        "        return Case(what='test', names=('x',), run=self.run)\n"
        "    def run(self):\n"
        "        if self.number != 1: return\n"
        f"        {body}\n"
        "def make(folder): return Dying()\n",
        encoding="utf-8",
    )
    main = tmp_path / "cases.py"
    text = Path(cases.__file__).read_text(encoding="utf-8")
    main.write_text(text.replace('"pictures": "picture_inputs"', '"pictures": "dying_inputs"'), encoding="utf-8")
    monkeypatch.setattr(overseer, "WORKER", main)
    soak = overseer.Soak(seed=0, keep=tmp_path / "kept")
    soak.run({"pictures": 4})
    tally = soak.tallies["pictures"]
    assert (tally.worked, tally.findings) == (3, 1)
    assert soak.findings[0]["number"] == 1
    expected = {"abort": "SIGABRT", "spin": "seconds of work", "grow": "MiB more memory"}[way]
    assert expected in soak.findings[0]["kind"] + soak.findings[0]["message"]
