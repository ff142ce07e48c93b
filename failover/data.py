"""What an operator deploys (haproxy/): its only reader, in the wheel and in a checkout alike.

In the wheel the folders lie in failover/_data (pyproject.toml, "sources"); in a checkout, beside the package.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from failover.errors import FailoverError


def text(folder: str, name: str) -> str:
    """The text of one file, such as ``text("haproxy", "stats.cfg.template")``. Raises FailoverError."""
    found = _folder(folder) / name
    if not found.is_file():
        raise FailoverError(
            f"{folder}/{name} is not part of this installation", "install cardano-failover again, from its wheel"
        )
    return found.read_text(encoding="utf-8")


def template(folder: str, name: str) -> Template:
    """One file as a template with ``$name`` places. Raises FailoverError."""
    return Template(text(folder, name))


def _folder(name: str) -> Traversable:
    package = files("failover")
    packed = package / "_data" / name
    return packed if packed.is_dir() else Path(str(package)).parent / name
