"""The import hook: one module of the product is imported with one line of its source replaced.

``install`` comes before the module's first import. An anchor that is not found exactly once is an error: then the
guard has moved, and the mutant proves nothing any more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from .table import Mutant


class AnchorError(Exception):
    """The line that a mutant replaces is not there exactly once."""


def mutate(source: str, mutant: Mutant) -> str:
    """The source without the guard. Raises AnchorError."""
    count = source.count(mutant.anchor)
    if count != 1:
        found = "not found" if not count else f"found {count} times"
        raise AnchorError(f"mutant {mutant.name!r}: in {mutant.module} the anchor was {found}: {mutant.anchor!r}")
    return source.replace(mutant.anchor, mutant.replacement)


def source_of(mutant: Mutant) -> Path:
    """The file of the mutant's module, found without importing anything. Raises AnchorError."""
    path: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    name = ""
    for part in mutant.module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        path = None if spec is None else spec.submodule_search_locations
    if spec is None or spec.origin is None:
        raise AnchorError(f"mutant {mutant.name!r}: there is no module {mutant.module}")
    return Path(spec.origin)


class _Loader(SourceFileLoader):
    """Compiles the mutated source; never reads or writes cached bytecode."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = mutate(self.get_data(path).decode(), self._mutant)
        code: CodeType = self.source_to_code(source.encode(), path)
        return code


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(self._mutant, spec.origin)
        return spec


def install(mutant: Mutant) -> None:
    """Let the mutant's module be imported without the guard. Raises AnchorError, also when it is imported already."""
    if mutant.module in sys.modules:
        raise AnchorError(f"mutant {mutant.name!r}: {mutant.module} is imported already, whole")
    mutate(source_of(mutant).read_text(), mutant)
    sys.meta_path.insert(0, _Finder(mutant))
