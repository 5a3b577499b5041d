"""Rules of the house: import levels, sizes and names of files, what is never imported, README and docs that stay true."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vedere"
LEVELS = {
    "errors": -2,  # level 0, but the other rooms of that level may name what goes wrong
    "atomic": -1,  # level 0, but they may write by it
    **dict.fromkeys(("config", "plan", "answers", "packages", "journal"), 0),
    **dict.fromkeys(("vision", "text"), 1),
    **dict.fromkeys(("data", "models"), 2),
    "infer": 3,
    **dict.fromkeys(("train", "evals", "recaption"), 4),
    **dict.fromkeys(("align", "compose"), 5),
    **dict.fromkeys(("serve", "recipes", "verify"), 6),
    "cli": 7,
    "__main__": 8,
}
# The first are never imported at all. The others are slow, or needed by few: only inside the functions that use them (a
# command's module, itself imported when the command is called, may make its options by tyro).
FORBIDDEN = {"transformers", "torchvision", "trl"}
LAZY = {
    "av",
    "docx",
    "fastapi",
    "faster_whisper",
    "gguf",
    "gradio",
    "httpx2",
    "huggingface_hub",
    "inspect_ai",
    "lancedb",
    "llvmlite",
    "matplotlib",
    "numba",
    "openai",
    "pyarrow",
    "pydantic",
    "resvg_py",
    "rich",
    "tensorboard",
    "tyro",
}
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc"}
LONGEST = 500

SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = ("src", "tests", "benchmarks", "examples")
PYTHON = sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.py"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def show(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(path: Path) -> str:
    """`errors` for src/vedere/errors.py, `data` for src/vedere/data/build/words.py, "" for the package itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path, tree: ast.AST | None = None) -> list[tuple[int, str, tuple[str, ...]]]:
    """(line, module, names) of every import statement, those inside functions included."""
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(parse(path) if tree is None else tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{show(path)}:{node.lineno}: relative import; write the whole name"
            found.append((node.lineno, node.module or "", tuple(alias.name for alias in node.names)))
    return found


def rooms_imported(module: str, names: tuple[str, ...]) -> list[str]:
    parts = module.split(".")
    if parts[0] != "vedere":
        return []
    return [parts[1]] if len(parts) > 1 else [name for name in names if name != "__version__"]


def test_the_tables_above_are_those_of_the_tree():
    rooms = {room_of(path) for path in SOURCES} - {""}
    assert rooms <= set(LEVELS), f"rooms without a level: {sorted(rooms - set(LEVELS))}"
    assert len(SOURCES) > 50
    assert len(PYTHON) > len(SOURCES)


def level_violations(path: Path, room: str) -> list[str]:
    return [
        f"{show(path)}:{line}: {room} (level {LEVELS[room]}) imports {other} (level {LEVELS.get(other, '?')})"
        for line, module, names in imports(path)
        for other in rooms_imported(module, names)
        if other != room and LEVELS.get(other, 99) >= LEVELS[room]
    ]


@pytest.mark.parametrize("room", sorted({room_of(path) for path in SOURCES} - {""}))
def test_a_room_imports_itself_and_lower_levels(room):
    wrong = [line for path in SOURCES if room_of(path) == room for line in level_violations(path, room)]
    assert not wrong, "\n".join(wrong)


def test_the_level_rule_sees_a_wrong_import():
    """The rule above is tested on a file that breaks it: the trainer's loop, if it were in the data room."""
    assert any("imports train" in line for line in level_violations(PACKAGE / "train" / "loop.py", "data"))


def test_the_package_itself_imports_nothing_of_its_own():
    assert not [
        rooms for _, module, names in imports(PACKAGE / "__init__.py") if (rooms := rooms_imported(module, names))
    ]


def test_no_file_is_longer_than_it_should_be():
    long = {show(path): count for path in PYTHON if (count := len(path.read_text("utf-8").splitlines())) > LONGEST}
    assert not long, f"longer than {LONGEST} lines, is a noun missing? {long}"


def test_no_file_has_a_vague_name():
    assert not [show(path) for path in PYTHON if path.stem.strip("_") in VAGUE or path.parent.name in VAGUE]


def test_every_module_says_what_it_is():
    silent = [show(p) for p in PYTHON if not ast.get_docstring(parse(p)) and p.read_text("utf-8").strip()]
    # A test file's name and the names of its tests say it; everything that a user may open says it in words.
    silent = [name for name in silent if not re.match(r"tests/.*(test_|conftest)", name)]
    assert not silent, f"modules without a docstring: {silent}"


def test_foreign_model_libraries_are_never_imported():
    wrong = [
        f"{show(path)}:{line}: {module}"
        for path in SOURCES
        for line, module, _ in imports(path)
        if module.split(".")[0] in FORBIDDEN
    ]
    assert not wrong, "\n".join(wrong)


def test_no_pickle_is_read_or_written():
    """Not even imported, nor what resembles it; torch and numpy are told not to unpickle objects."""
    wrong = []
    for path in SOURCES:
        for line, module, _ in imports(path):
            if module.split(".")[0] in ("pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"):
                wrong.append(f"{show(path)}:{line}: import {module}")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "torch.save"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if given.get("weights_only") != "True" and given.get("allow_pickle") != "False":
                    wrong.append(f"{show(path)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_and_the_command_is_light():
    loaded = run_python("import sys, vedere, vedere.cli; print(*sorted(m.split('.')[0] for m in sys.modules))").split()
    assert "vedere" in loaded
    heavy = {"torch", "numpy", "PIL", "tokenizers"} | LAZY | FORBIDDEN
    assert not heavy & set(loaded)


def test_importing_everything_opens_no_socket_and_nothing_that_can_wait():
    code = (
        "import pkgutil, socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network at import')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "import vedere\n"
        "names = [m.name for m in pkgutil.walk_packages(vedere.__path__, 'vedere.') if '__main__' not in m.name]\n"
        # what Inspect imports through its entry point, and what numba compiles when a model is loaded for it
        "names = [name for name in names if '.inspect_' not in name and '.compiled_' not in name]\n"
        "for command in (False, True):\n"
        "    [__import__(name) for name in names if name.startswith('vedere.cli.') == command]\n"
        "    print(*sorted({m.split('.')[0] for m in sys.modules}))\n"
        "print(len(names))\n"
    )
    without_commands, everything, count = (set(line.split()) for line in run_python(code).splitlines())
    assert int(count.pop()) > 50
    assert not (LAZY | FORBIDDEN) & without_commands
    assert not ((LAZY - {"tyro"}) | FORBIDDEN) & everything


@pytest.mark.parametrize(
    ("libraries", "stem"), [({"inspect_ai", "anyio"}, "inspect_"), ({"numba", "llvmlite"}, "compiled_")]
)
def test_only_what_a_library_loads_imports_it_at_the_top(libraries: set[str], stem: str):
    top = [
        show(path)
        for path in SOURCES
        for node in parse(path).body
        for _, module, _ in (imports(path, node) if isinstance(node, (ast.Import, ast.ImportFrom)) else [])
        if module.split(".")[0] in libraries
    ]
    assert top
    assert all(Path(name).stem.startswith(stem) for name in top), top


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tree_entries() -> dict[str, str]:
    """Path -> line of the README's tree: two blanks a depth, a name, then what lives there."""
    (tree,) = fenced((ROOT / "README.md").read_text("utf-8"), "text")
    parents: list[str] = []
    entries = {}
    for line in tree.splitlines():
        name, _, what = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name.rstrip("/")]
        entries["/".join(parents)] = what.strip()
    return entries


def test_the_readme_tree_is_the_tree():
    entries = tree_entries()
    assert not [path for path in entries if not (ROOT / path).exists()], "in the README but not in the repository"
    assert not [path for path, what in entries.items() if not what], "a line that says nothing"
    modules = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))]
    rooms = {f"src/vedere/{path.name}" for path in modules if not path.name.startswith("__")}
    rooms |= {name for name in (*TREES, "docs") if any(p.is_file() for p in (ROOT / name).rglob("*"))}
    assert not sorted(rooms - set(entries)), "in the repository but not in the README"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=show)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    broken = []
    for target in (one or other for one, other in targets):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert not broken, f"{show(page)}: {broken}"


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert not [
        page.name for page in (ROOT / "docs").rglob("*.md") if page.name != "index.md" and page.name not in index
    ]


def named_files(page: Path) -> set[str]:
    """Paths in back quotes: `src/...`, `tests/...` and the like."""
    return set(re.findall(rf"`((?:{'|'.join((*TREES, 'docs'))})/[\w./-]+)`", page.read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=show)
def test_files_that_pages_name_are_there(page):
    missing = sorted(name for name in named_files(page) if not (ROOT / name).exists())
    assert not missing, f"{show(page)} names files that are not there: {missing}"


def test_no_absolute_path_of_a_machine_is_written_down():
    kinds = {".py", ".md", ".toml", ".json", ".txt", ".svg", ".html", ".yml", ""}
    folders = ("work", "farm", "root", "home", "Users", "mnt")
    pattern = re.compile(rf"(?<![\w./:-])/(?:{'|'.join(folders)})/\w|(?<![\w./:-])/tmp/[a-z]|\b[A-Z]:\\Users")
    places = [ROOT / name for name in ("Makefile", "README.md", "pyproject.toml", "constraints.txt", ".ci/run")]
    places += [path for tree in (*TREES, "docs") for path in (ROOT / tree).rglob("*")]
    found = [
        f"{show(path)}:{number}: {line.strip()[:100]}"
        for path in places
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts and "golden" not in path.parts
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def glossary() -> dict[str, tuple[str, str]]:
    """Word -> (meaning, where it lives)."""
    lines = (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    rows = [row for row in cells if not set(row[0]) <= {"-", " "} and row[0] != "Word"]
    return {row[0].strip("*"): (row[1], row[2]) for row in rows}


def test_the_glossary_has_one_line_a_word_in_order():
    words = [word.lower() for word in glossary()]
    assert words == sorted(words)
    needed = {"tile", "thumbnail", "plan", "span", "pack", "document", "expert", "stage", "recipe", "sample", "delta"}
    assert needed <= set(words), f"missing: {sorted(needed - set(words))}"


def defines(file: Path, name: str) -> bool:
    body: list[ast.stmt] = parse(file).body
    for part in name.split("."):
        for node in body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            if part in [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]:
                body = getattr(node, "body", [])
                break
        else:
            return False
    return True


@pytest.mark.parametrize("word", sorted(glossary()))
def test_glossary_words_live_where_the_glossary_says(word):
    meaning, where = glossary()[word]
    assert len(meaning) > 20
    names = re.findall(r"`vedere\.([\w.]+)`", where)
    assert names, f"{word}: no `vedere....` name in {where!r}"
    for name in names:
        parts = name.split(".")
        files = [
            (file, ".".join(parts[depth:]))
            for depth in range(1, len(parts) + 1)
            for file in [
                PACKAGE.joinpath(*parts[:depth]).with_suffix(".py"),
                PACKAGE.joinpath(*parts[:depth], "__init__.py"),
            ]
            if file.is_file()
        ]
        assert any(not rest or defines(file, rest) for file, rest in files), f"{word}: vedere.{name} does not exist"
