"""A pool's file for playing: checked as every command checks it, but for what agents name.

Nothing is contacted here, so the keys of agents need not be on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from failover import config
from failover.config import records, rules
from failover.config.document import read
from failover.config.finding import InvalidConfig
from failover.config.parts import parts
from failover.model import Pool


def load(path: Path, *, environ: Mapping[str, str] = os.environ) -> Pool:
    """The pool of a file. Raises InvalidConfig with every finding."""
    return of_text(config._text(path), str(path), environ=environ)


def of_text(text: str, name: str, *, environ: Mapping[str, str] = os.environ) -> Pool:
    """The same for a text that has been read already."""
    root, doubled = read(text, name)
    values = parts(root.plain())
    passwords: dict[int, str] = {}
    zones: records.Zones = {}
    found = [
        *values.problems,
        *rules.problems(values),
        *config._files(values, environ, passwords),
        *records.zones(values.values.get("records", []), environ, zones),
    ]
    findings = [*doubled, *(config._finding(problem, root, name) for problem in found)]
    if findings:
        raise InvalidConfig(sorted(findings, key=lambda finding: finding.line or 0))
    return config._pool(values.values, passwords, zones)
