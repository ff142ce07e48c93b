"""What holds for every test: short folders, Ctrl-C that arrives, any machine's pace, no skips where none may be."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Whoever starts the tests in a shell's background has them ignore Ctrl-C, and so would all programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Other interpreters are compared with where they are at hand; no package could provide them.
ALLOWED = ("no CPython",)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure that says what was missing."""
    report = yield
    required = os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()
    if report.skipped and "all" in required and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"FAILOVER_REQUIRE=all, and this test was skipped: {reason}"
    return report


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has room for about a hundred bytes only."""
    folder = Path(tempfile.mkdtemp(prefix="fo-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
