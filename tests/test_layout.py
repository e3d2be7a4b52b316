"""Rules for the source files: imports, length, and docstrings listed in CONTRIBUTING.md."""

import ast
from pathlib import Path

import pytest

from helpers.command_line import ROOT

PACKAGE = ROOT / "lit_gpt_scratch"
# A package may import itself, the names in lit_gpt_scratch/__init__.py, and the packages listed here.
MAY_IMPORT = {
    "__init__": {"__main__", "api", "data", "evaluation", "training"},  # imported on first use
    "__main__": {"cli"},
    "cli": {"data", "model", "generation", "training", "tools", "hub", "scaling", "planning"},
    "api": {"data", "model", "generation", "training"},
    "evaluation": {"api", "data", "model", "generation", "training"},
    "hub": {"api", "data", "model", "generation", "training", "tools"},
    "data": set(),
    "model": set(),
    "generation": {"data", "model"},
    "training": {"data", "model", "generation"},
    "tools": {"data", "model", "generation", "training"},
    "scaling": {"data", "model", "generation", "training", "tools"},
    "planning": {"data", "model", "generation", "training", "tools", "scaling"},
}
MAY_IMPORT_LIGHTNING = ("cli", "training", "planning")
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = ROOT / "tests"
TEST_MODULES = sorted([*TESTS.rglob("test_*.py"), TESTS / "conftest.py"])
HELPER_FOLDERS = {"helpers", "end_to_end", "pretend_cpu"}  # these do not mirror a package


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_package(dotted: str) -> str:
    """Return PACKAGE of `lit_gpt_scratch.PACKAGE...`, or __init__ for a name that it defines."""
    first = dotted.split(".")[1]
    return first if first in MAY_IMPORT else "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        if name.startswith("lit_gpt_scratch"):
            assert imported_package(name) in MAY_IMPORT[own] | {own, "__init__"}, (
                f"{own} may not import {name}"
            )
        if name.split(".")[0] in ("lightning", "pytorch_lightning"):
            assert own in MAY_IMPORT_LIGHTNING or path.name == "datamodule.py"
        if "callbacks" in path.parts:
            assert not name.startswith("lit_gpt_scratch.training.module")


@pytest.mark.parametrize(
    "path", [*SOURCES, *sorted(TESTS.rglob("*.py"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_file_has_at_most_350_lines(path: Path) -> None:
    assert path.name != "utils.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_entry_point_imports_no_torch() -> None:
    tree = ast.parse((PACKAGE / "__main__.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"codecs", "locale", "os", "subprocess", "sys", "tempfile", "warnings"}


def test_contributing_lists_every_file_with_its_docstring() -> None:
    listed = {
        " ".join(line.split()) for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    }
    for path in SOURCES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, path
        name = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
        if path.parent != PACKAGE or path.name != "__init__.py":
            assert f"{name} {docstring.splitlines()[0].rstrip('.')}" in listed


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_test_module_imports_no_other_test_module(path: Path) -> None:
    test_modules = {module.stem for module in TEST_MODULES} | {"tests"}
    for name in imports(path):
        assert not test_modules & {*name.split(".")}


def test_test_folders_mirror_the_packages() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")} - {Path()}
    mirrors = {folder for folder in folders if folder.parts[0] not in HELPER_FOLDERS}
    assert mirrors
    assert all((PACKAGE / folder / "__init__.py").is_file() for folder in mirrors)
