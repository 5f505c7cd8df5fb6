"""Every Python block of the README and the documentation runs, page by page,
and the examples of all docstrings hold.

A block that imports one of the bridges is a program by itself, which runs where
the bridge's library is installed; the others of its page are one program. On the
pages of NEEDS all blocks are one program, but those with a library of FURTHER.
"""

import ast
import doctest
import importlib
import importlib.util
import inspect
import io
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import localconv
from localconv.core.arrays import BRIDGES
from localconv.docstrings import whole

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BRIDGE = re.compile(rf"^(?:import|from) localconv\.({'|'.join(BRIDGES)})\b", re.MULTILINE)
# What a page needs beside the package and the tests' own tools.
NEEDS = {
    "tutorial": ("sklearn",),
    "gallery": ("PIL",),
    "spatially-varying-filters": ("PIL", "sklearn"),
    "inverse-problems": ("scipy",),
    "coming-from-numpy": ("scipy",),
    "beyond-one-machine": ("dask", "distributed", "joblib", "ray"),
    "coming-from-jax": ("jax",),
    "deploying": ("onnx", "onnxruntime"),
    "coming-from-torch": ("torch",),
}
# A block that imports one of these goes on with the program of its page, and runs where that library is installed.
FURTHER = re.compile(r"^(?:import|from) (pylops)\b", re.MULTILINE)
SKIPPED = ("__main__", "_core", "_xla")
# Bridges whose docstrings tests/bridges runs.
ELSEWHERE = ("localconv.keras", "localconv.torch")
MODULES = ["localconv"] + [
    m.name
    for m in pkgutil.walk_packages(localconv.__path__, "localconv.")
    if not m.name.endswith(SKIPPED) and not m.name.startswith(ELSEWHERE)
]


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def programs(page):
    """What each program of a page needs, and its code."""
    needed = NEEDS.get(page.stem, ())
    plain, others = [], []
    for block in blocks(page):
        bridge, further = BRIDGE.search(block), FURTHER.search(block)
        if further is not None:
            others.append(((*needed, further[1]), "\n".join([*plain, block])))
        elif bridge is None or bridge[1] in needed:
            plain.append(block)
        else:
            others.append(((bridge[1],), block))
    return [(needed, "\n".join(plain)), *others] if plain else others


PROGRAMS = [
    pytest.param(needed, code, id=f"{page.stem}-{number}" if number else page.stem)
    for page in PAGES
    if page.exists()
    for number, (needed, code) in enumerate(programs(page))
]


@pytest.mark.parametrize(("needed", "code"), PROGRAMS)
def test_blocks_run(needed, code, tmp_path):
    """In a process and a folder of their own, one after the other in one namespace."""
    for library in needed:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}, which is not installed")
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def of_checkout(path):
    """The path; the test is skipped where it is not beside the tests, as an installed package's are."""
    if not path.exists():
        pytest.skip("a test of a checkout; this is not one")
    return path


def contributing():
    """The text of CONTRIBUTING.md, where the sources that it speaks of are beside it."""
    page = ROOT / "CONTRIBUTING.md"
    if not page.exists() or not (ROOT / "include").exists():
        pytest.skip("a test of a checkout; this is not one")
    return page.read_text(encoding="utf-8")


SOURCES = (".py", ".pyx", ".pyi", ".h", ".c", ".yml", ".toml")
# What a word of CONTRIBUTING.md stands for that is another one each time: an instruction set, an algorithm, a type, a
# tile's size, a version.
PLACEHOLDERS = re.compile(r"NAME|_T_|RxV|VERSION|\*")


def test_what_contributors_read_of_is_there():
    """Files and words of the code, in backticks, that the code does not have any more."""
    if not (ROOT / "src").is_dir():
        pytest.skip("needs the sources, which are not beside the tests of an installed package")
    text = contributing()
    folders = ("src", "include", "tests", "benchmarks", ".github")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in SOURCES]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    places = [f"/{path.relative_to(ROOT).as_posix()}" for path in files]
    named = [name for name in re.findall(r"`([\w./]+)`", text) if not PLACEHOLDERS.search(name)]
    missing = []
    for name in sorted(set(named)):
        if name.endswith(SOURCES):
            found = any(place.endswith(f"/{name}") for place in places)
        else:
            found = "/" in name or set(re.findall(r"\w+", name)) <= words | {"md"} or (ROOT / name).exists()
        if not found:
            missing.append(name)
    assert missing == []
    assert len(named) > 100


def test_commands_for_a_part_of_the_tests_find_some():
    commands = re.findall(r"-m pytest (tests/\w+\.py) -k (\w+)", contributing())
    assert commands
    for file, words in commands:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", file, "-k", words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout  # 5: no test was selected


def test_hooks_run_the_linters_of_make_lint():
    """The same versions: another ruff wants other files."""
    hooks = of_checkout(ROOT / ".pre-commit-config.yaml")
    asked = re.findall(r"additional_dependencies: \[(.*)\]", hooks.read_text(encoding="utf-8"))
    required = [requirement.strip('" ') for line in asked for requirement in line.split(",")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert required
    assert set(required) <= set(project["optional-dependencies"]["lint"])


COPIES = {
    "CITATION.cff": "\nversion: {}\n",
    "conda/recipe.yaml": '\n  version: "{}"\n',
    "docs/installation.md": "\nlocalconv        {}\n",
    "CHANGELOG.md": "\n## [{}]",
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_the_version(name):
    page = of_checkout(ROOT / name)
    assert COPIES[name].format(localconv.__version__) in page.read_text(encoding="utf-8")


def test_release_notes_are_the_section_of_the_version():
    tool = of_checkout(ROOT / "tools" / "release_notes.py")

    def notes(version):
        return subprocess.run([sys.executable, tool, version], capture_output=True, text=True, check=False)

    made = notes(localconv.__version__)
    assert made.returncode == 0, made.stderr
    assert "\n### Added\n" in made.stdout
    assert "\n## " not in made.stdout
    assert notes("0.0").stderr == "CHANGELOG.md must have a section [0.0] with text in it\n"


def test_one_line_says_how_to_install():
    """No index has the package until a release: only README's marked line may name the name without an extra."""
    readme = of_checkout(ROOT / "README.md")
    before, marked, after = re.split(r"<!-- install(?:ed)? -->\n", readme.read_text(encoding="utf-8"))
    assert re.fullmatch(r"    pip install (?:\.|localconv) .*\n", marked)
    texts = {page.name: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "SECURITY.md"]}
    texts["README.md"] = before + after
    from_index = r"pip (?:install|download|wheel)(?: -[\w-]+(?: :all:)?)* localconv(?!\S)|OWNER"
    assert {name: found for name, text in texts.items() if (found := re.findall(from_index, text))} == {}
    including = {name for name, text in texts.items() if '```{include} ../README.md\n:start-after: "<!-- inst' in text}
    assert including == {"index.md", "installation.md"}


def test_messages_ask_for_what_the_extras_ask_for():
    """A message names the library itself: a source tree on the path has no extras, and its name is on no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {line for extra in project["optional-dependencies"].values() for line in extra}
    package = Path(localconv.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        # A message that goes on in the next line is one string.
        text = re.sub(r'" *\n *f?"', "", path.read_text(encoding="utf-8"))
        found |= dict.fromkeys(re.findall(r"(?<!`)pip install '([^']+)'", text), path.name)
    assert {asked: place for asked, place in found.items() if asked not in required} == {}
    assert len(found) >= 6


def test_installation_shows_what_is_printed():
    """The same lines, in the same order, and this version."""
    page = of_checkout(ROOT / "docs" / "installation.md")
    shown = re.search(r"^```text\n(localconv .*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    printed = io.StringIO()
    localconv.show_config(printed)
    labels = [[re.split(r"  +", line)[0] for line in text.splitlines()] for text in (shown, printed.getvalue())]
    assert labels[0] == labels[1]
    assert shown.splitlines()[0] == printed.getvalue().splitlines()[0]


PARTS = [
    localconv.layers.initializers,
    localconv.layers.regularizers,
    localconv.layers.constraints,
    localconv.layers.activations,
]


@pytest.mark.parametrize("module", [localconv, localconv.grad, localconv.layers, *PARTS])
def test_everything_public_is_typed(module):
    """The file that a strict type checker reads leaves nothing out."""
    page = of_checkout(ROOT / "tests" / "typing" / "whole_api.py")
    words = set(re.findall(r"\w+", page.read_text(encoding="utf-8")))
    assert set(module.__all__) <= words


def names_for_all(module):
    """`__all__` of a module that need not be importable here."""
    file = Path(localconv.__file__).parent / f"{module.replace('.', '/')}"
    source = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return set(ast.literal_eval(statement.value))
    raise AssertionError(f"{source} has no __all__")


@pytest.mark.parametrize("module", ["", "grad", "layers", *BRIDGES, "dask.grad", "convert"])
def test_everything_public_is_in_the_reference(module):
    folder = of_checkout(ROOT / "docs" / "api")
    words = set()
    for page in folder.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        # What autosummary lists, what automodule describes, and what the text names.
        for block in re.findall(r"^```{eval-rst}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            current = re.search(r"^\.\. currentmodule:: localconv\.?([\w.]*)$", block, re.MULTILINE)
            if current and current[1] == module:
                words |= set(re.findall(r"^   (\w+)$", block, re.MULTILINE))
        words |= set(re.findall(rf"^\.\. automodule:: localconv\.{module}\.(\w+)$", text, re.MULTILINE))
        words |= set(re.findall(rf"`(?:localconv\.{module}\.?)?(\w+)`", text))
    assert names_for_all(module) <= words


def test_the_whole_interface_runs(tmp_path):
    file = Path(__file__).parent / "typing" / "whole_api.py"
    done = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FUNCTIONS = [
    getattr(module, name)
    for module in (localconv, localconv.grad)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
]


def entries(docstring):
    """The arguments that a docstring describes, and what it says of each."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(\w[^\n]*)\n((?: .*\n?)+)", section[1], re.MULTILINE) if section else []
    return {name: body for head, body in found for name in head.partition(" : ")[0].split(", ")}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_docstrings_are_whole(function):
    """Nobody is sent to another function for an argument or an error, and nothing is of another rank."""
    text = inspect.getdoc(function)
    arguments = list(inspect.signature(function).parameters)
    assert sorted(entries(text)) == sorted(arguments)
    assert all(body.strip() for body in entries(text).values())
    assert not re.search(r"\bAs (?:in )?`|\\bAs in the forward|^ *Of that ", text, re.MULTILINE)
    rank = re.search(r"(\d)d(?:_|$)", function.__name__)
    if rank is not None:
        others = {"1": "2 ints|[23]D|columns", "2": "1 int|[13]D|steps|causal|depths"}
        others["3"] = (
            "1 int|2 ints|[12]D|steps|causal|two pairs|(?<!depths, )rows, columns|(?<!depths, )rows and columns"
        )
        words = text.partition("\nExamples\n")[0]
        assert re.findall(rf"\b(?:{others[rank[1]]})\b", words) == []


def test_docstrings_take_only_what_is_there():
    def source_1d():
        """Source.

        Parameters
        ----------
        strides : int or sequence of 1 int
            Steps from one
            window to the next.

        Raises
        ------
        ValueError
            Sometimes.
        """

    def of(text):
        def target_2d():
            pass

        target_2d.__doc__ = text
        return inspect.getdoc(whole(source_1d)(target_2d))

    head = "Target.\n\nParameters\n----------\n"
    raises = "\n\nRaises\n------\nTypeError, ValueError\n    As `source_1d`."
    assert of(f"{head}strides\n    As in `source_1d`.{raises}") == (
        f"{head}strides : int or sequence of 2 ints\n    Pixels along every axis from one window to the next.\n\n"
        "Raises\n------\nValueError\n    Sometimes."
    )
    with pytest.raises(ValueError, match="target_2d takes padding from source_1d, whose docstring has no entry for it"):
        of(f"{head}padding\n    As in `source_1d`.")
    with pytest.raises(ValueError, match="takes something from other, which must be among"):
        of(f"{head}strides\n    As in `other`.")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    part = name.split(".")[1:2]
    if part and part[0] in BRIDGES:  # each is called as the library that it needs
        pytest.importorskip(part[0], reason=f"{name} needs {part[0]}")
    if name == "localconv.layers.onnx":
        pytest.importorskip("onnx", reason=f"{name} needs onnx")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
