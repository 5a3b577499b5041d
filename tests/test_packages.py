"""Packages as sources of files: fetched once by their clients, unpacked as data, refused when they are damaged."""

import subprocess
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from vedere import packages
from vedere.errors import PackageError


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Clients replaced by copies of archives that the test makes; ``calls`` counts how often they ran."""
    state = SimpleNamespace(archive=None, error="", calls=[])

    def run(command, **kwargs):
        state.calls.append(command)
        flag = "--dest" if "--dest" in command else "--pack-destination"
        if state.archive:
            target = command[command.index(flag) + 1]
            (tmp_path / target / state.archive.name).write_bytes(state.archive.read_bytes())
        return SimpleNamespace(returncode=0 if state.archive else 1, stderr=state.error)

    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    return state


def tarball(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            source = path.parent / "member"
            source.write_text(text)
            archive.add(source, name)
    return path


def test_a_wheel_is_fetched_once_and_without_its_dependencies(tmp_path, registry):
    registry.archive = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(registry.archive, "w") as archive:
        archive.writestr("thing/data.txt", "seen")
    said = []
    folder = packages.fetch_wheel("thing==1.0", said.append)
    assert (folder / "thing" / "data.txt").read_text() == "seen"
    assert packages.fetch_wheel("thing==1.0", said.append) == folder
    assert len(registry.calls) == len(said) == 1
    assert "--no-deps" in registry.calls[0]
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["thing-1.0"]


def test_an_npm_package_loses_its_outer_folder(tmp_path, registry):
    registry.archive = tarball(
        tmp_path / "scope-art-2.0.tgz", {"package/package.json": "{}", "package/icons.json": "[]"}
    )
    folder = packages.fetch_npm("@scope/art", "2.0", lambda line: None)
    assert (folder / "icons.json").read_text() == "[]"
    assert folder.name == "@scope--art-2.0"
    assert registry.calls[0][1:3] == ["pack", "@scope/art@2.0"]


def test_members_that_would_leave_their_folder_are_refused(tmp_path, registry):
    registry.archive = tarball(tmp_path / "bad.tgz", {"package/ok": "", "package/../../out": "x"})
    with pytest.raises(PackageError, match=r"archive of bad 1 cannot be unpacked .*; fetch it again"):
        packages.fetch_npm("bad", "1", lambda line: None)
    assert not list((tmp_path / "cache" / "npm").iterdir())


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_archive_is_said(tmp_path, registry, content):
    registry.archive = tmp_path / "x-1-py3-none-any.whl"
    registry.archive.write_bytes(content)
    with pytest.raises(PackageError, match="archive of x 1 cannot be unpacked"):
        packages.fetch_wheel("x==1", lambda line: None)


def test_failures_of_the_clients_are_quoted(registry, monkeypatch):
    registry.error = "npm warn old\nnpm error 404 no such package\n"
    with pytest.raises(PackageError, match="npm download failed: npm error 404 no such package"):
        packages.fetch_npm("nothing", "1.0.0", lambda line: None)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(PackageError, match=r"there is no npm on this computer; install Node\.js"):
        packages.fetch_npm("nothing", "1.0.0", lambda line: None)

    def slow(command, **kwargs):
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(packages.subprocess, "run", slow)
    with pytest.raises(PackageError, match="pip did not finish within 900 s"):
        packages.fetch_wheel("x==1", lambda line: None)


@pytest.mark.parametrize("wrong", ["x", "x>=1", "../x==1", "x==1/.."])
def test_requirements_are_exact(wrong):
    with pytest.raises(PackageError, match="expected name==version"):
        packages.fetch_wheel(wrong, lambda line: None)


def test_the_cache_follows_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "a"))
    assert packages.cache_directory() == tmp_path / "a"
    monkeypatch.delenv("VEDERE_CACHE")
    monkeypatch.setattr(packages.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert packages.cache_directory() == tmp_path / "b" / "vedere"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packages.cache_directory() == tmp_path / ".cache" / "vedere"
    assert not (tmp_path / ".cache").exists()
