"""One line of the table: what was measured, against what, and what is aimed at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Say = Callable[[str], None]
"""Takes a line that tells how far a bench has come."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be: ``bound`` at most, or at least. ``of`` is ``ratio`` or ``measured``."""

    bound: float
    at_least: bool = False
    of: str = "ratio"

    def met(self, value: float) -> bool:
        """Whether ``value`` is on the right side of the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured, in ``unit``, and what it is compared with in the same unit (None: with nothing).

    ``note`` says how it was measured, where that is not plain.
    """

    name: str
    measured: float
    unit: str
    against: float | None = None
    bare: str = ""  # what the figure is compared with
    aim: Aim | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over bare."""
        return None if not self.against else self.measured / self.against

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing without an aim."""
        value = self.measured if self.aim is not None and self.aim.of == "measured" else self.ratio
        if self.aim is None or value is None:
            return ""
        return "met" if self.aim.met(value) else "missed"

    def document(self) -> dict[str, Any]:
        """The figure, JSON-ready."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict or None}


def interleaved(rounds: int, *runs: Callable[[], float]) -> list[list[float]]:
    """What each of ``runs`` gave in each round, taken in turn: a machine that is busy for a while is so for all."""
    found: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            found[index].append(runs[index]())
    return found


def medians(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The median of each of ``runs`` over interleaved rounds."""
    return [median(values) for values in interleaved(rounds, *runs)]


# ---------------------------------------------------------------- the table

_HEADS = ("figure", "measured", "against", "ratio", "aim", "")


def table(figures: Sequence[Figure]) -> str:
    """The figures as plain text, with the notes below."""
    rows = [_HEADS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:4], widths[1:4], strict=True))]
        cells += [c.ljust(w) for c, w in zip(row[4:], widths[4:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    notes = [
        f"{figure.name}: "
        + "; ".join(words for words in (figure.bare and f"against {figure.bare}", figure.note) if words)
        for figure in figures
        if figure.bare or figure.note
    ]
    return "\n".join([*lines, "", *notes])


def _row(figure: Figure) -> tuple[str, ...]:
    against = "" if figure.against is None else f"{number(figure.against)} {figure.unit}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return (figure.name, f"{number(figure.measured)} {figure.unit}", against, ratio, _aim(figure), figure.verdict)


def _aim(figure: Figure) -> str:
    aim = figure.aim
    if aim is None:
        return ""
    sign = ">=" if aim.at_least else "<="
    if aim.of == "measured":
        return f"{sign} {number(aim.bound)} {figure.unit}"
    return f"{sign} {aim.bound:.2f} x"


def number(value: float) -> str:
    """``value`` with three significant digits or more, and thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
