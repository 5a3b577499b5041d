"""Bundles: parts go out and come back whole, or are refused."""

import importlib.util
import io
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "train_from_bundle.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_from_bundle", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PART = 1000
    return module


@pytest.fixture
def bundle(tool: ModuleType, tmp_path: Path) -> Path:
    source = tmp_path / "corpus.tar"
    with tarfile.open(source, "w") as archive:
        data = bytes(range(256)) * 20
        member = tarfile.TarInfo("train/a.bin")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    tool.split(source, tmp_path / "parts")
    return tmp_path / "parts"


def test_parts_are_joined_and_unpacked(tool: ModuleType, bundle: Path, tmp_path: Path) -> None:
    assert len(list(bundle.glob("*.part*"))) > 5
    tool.join(bundle, tmp_path / "work")
    assert (tmp_path / "work" / "corpus.tar").read_bytes() == (tmp_path / "corpus.tar").read_bytes()
    assert (tmp_path / "work" / "corpus" / "train" / "a.bin").read_bytes() == bytes(range(256)) * 20


def test_parts_may_come_in_several_loads(
    tool: ModuleType, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_back = next(iter(sorted(bundle.glob("*.part*"))))
    later = held_back.read_bytes()
    held_back.unlink()
    tool.join(bundle, tmp_path / "work")
    assert "still missing, first corpus.tar.part000" in capsys.readouterr().out
    assert not (tmp_path / "work" / "corpus.tar").exists()
    held_back.write_bytes(later)
    tool.join(bundle, tmp_path / "work")
    assert (tmp_path / "work" / "corpus.tar").exists()


def test_a_damaged_part_is_refused_by_name(tool: ModuleType, bundle: Path, tmp_path: Path) -> None:
    part = bundle / "corpus.tar.part003"
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(SystemExit, match=r"part003 is damaged"):
        tool.join(bundle, tmp_path / "work")


def test_the_bundle_holds_all_that_a_computer_without_a_network_lacks(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vedere import packages
    from vedere.models import sources

    cache = tmp_path / "home" / "pypi" / "stem-1.0"
    cache.mkdir(parents=True)
    (cache / "weights").write_bytes(b"w" * 2500)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"g" * 3500)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "meta.json").write_text("{}")
    monkeypatch.setattr(packages, "fetch_wheel", lambda requirement: cache)
    monkeypatch.setattr(sources, "language_model", lambda: None)
    monkeypatch.setattr(sources, "find_smollm2", lambda: gguf)
    tool.pack(corpus, tmp_path / "parts")
    tool.join(tmp_path / "parts", tmp_path / "work")
    assert (tmp_path / "work" / "corpus" / "meta.json").read_text() == "{}"
    assert (tmp_path / "work" / "cache" / "pypi" / "stem-1.0" / "weights").stat().st_size == 2500
    assert (tmp_path / "work" / "model.gguf").stat().st_size == 3500
