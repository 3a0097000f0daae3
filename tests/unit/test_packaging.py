"""The list of packages is the tree: a subpackage that is missing from it would be missing from the wheel."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("modelpool", *init.parent.relative_to(ROOT).parts))
        for component in ("supervisor", "worker", "frontend")
        for init in (ROOT / component).rglob("__init__.py")
    }
    assert listed == found


def test_every_component_is_typed() -> None:
    for component in ("supervisor", "worker", "frontend"):
        assert (ROOT / component / "py.typed").is_file()
