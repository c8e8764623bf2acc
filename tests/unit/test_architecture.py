"""The map that ARCHITECTURE.md draws of rig/ is that of the folder."""

import ast
import re
from pathlib import Path

import pytest

RIG = Path(__file__).parents[2] / "rig"
PACKAGES = sorted(path.parent.name for path in RIG.glob("*/__init__.py"))
WORD = re.compile(r"`([a-z_]+/?)`")


def rows() -> list[tuple[list[str], list[str]]]:
    """Return for each stage of the table the words of its package and of its modules."""
    lines = (RIG.parent / "ARCHITECTURE.md").read_text().splitlines()
    cells = [line.split("|") for line in lines[lines.index("|---|---|---|---|") + 1 :] if line.startswith("|")]
    return [(WORD.findall(row[2]), WORD.findall(row[3])) for row in cells]


def members(folder: Path) -> set[str]:
    """Return the modules and folders of a package as the table writes them."""
    found = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return found | {f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_every_package_is_a_stage_of_its_own() -> None:
    assert sorted(package for words, _ in rows() for package in words[:1]) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_the_row_of_a_package_names_its_modules_once(package: str) -> None:
    named = next(modules for words, modules in rows() if words[:1] == [package])
    assert sorted(named) == sorted(members(RIG / package))


def test_what_stands_at_the_top_is_named_once() -> None:
    named = [word for words, modules in rows() for word in (words[1:] if words else modules)]
    assert sorted([*named, "schemas/", *(f"{name}/" for name in PACKAGES)]) == sorted(members(RIG))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_and_nothing_else(package: str) -> None:
    body = ast.parse((RIG / package / "__init__.py").read_text()).body
    assert [ast.get_docstring(ast.Module(body, []))] != [None]
    assert len(body) == 1  # modules are imported where they are, not from here
