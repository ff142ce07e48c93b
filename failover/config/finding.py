"""What is said about a configuration file: which line, which key, which value, what is wrong, and the mend.

Everything that is printed of a file passes through here, so that a secret which stands where it should not
is never shown, whatever key it stands under.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from failover.errors import ConfigError

SHOWN = 80  # characters of a value that are printed
MOST_FINDINGS = 50  # printed; a damaged file must not flood a terminal or a journal
_SECRET_WORD = re.compile(
    r"pass(?:w|phrase|code)|secret|token|credential|api_?key|bearer|private[ _-]?key", re.IGNORECASE
)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with the file, or that deserves a warning. ``value`` is ready to print, or None."""

    file: str
    line: int | None
    key: str
    value: str | None
    problem: str
    mend: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = ": ".join(part for part in (place, self.key, self.value) if part)
        mend = self.mend if self.mend.endswith("?") else f"{self.mend}."
        return f"{subject}: {self.problem}." + (f" Mend: {mend}" if self.mend else "")


class InvalidConfig(ConfigError):
    """The file is wrong; ``findings`` has everything that is, in the file's order, and str() a line for each."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        lines = [str(finding) for finding in self.findings[:MOST_FINDINGS]]
        if len(self.findings) > MOST_FINDINGS:
            lines.append(f"{self.findings[0].file}: and {len(self.findings) - MOST_FINDINGS} more findings")
        super().__init__("\n".join(lines))


def shown(text: str) -> str:
    """The text in quotes, control characters escaped, cut to 80 characters; hidden when it may hold a secret.

    A sign ``@`` may end a password in a URL; a word like "password" outside a path may precede one.
    """
    if "@" in text or (_SECRET_WORD.search(text) and not text.startswith("/")):
        return "(not shown)"
    return f"'{escaped(text)}'"


def escaped(text: str) -> str:
    """The text on one line, in printable characters, cut to 80 characters."""
    cut = text[: SHOWN + 1]
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def shown_key(key: str) -> str:
    """A key as far as it looks like one: ``{password:hunter2}``, without a blank, makes a key of both words."""
    match = _PLAIN_KEY.match(key)
    plain = match.group() if match else ""
    return escaped(plain) if plain == key else f"{escaped(plain)}…"


def names_a_secret(key: str) -> bool:
    """Whether a key of this name would hold a secret itself."""
    return bool(_SECRET_WORD.search(key)) or key.lower() in ("pass", "pw", "pwd", "auth")


def dotted(location: Sequence[str | int]) -> str:
    """The place of a value as an operator writes it: ``proxies[1].servers.main``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + shown_key(part)
    return path
