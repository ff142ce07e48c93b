"""A plugin for pytest (``-p mutants.plugin``): the tests run against the mutant that FAILOVER_MUTANT names."""

from __future__ import annotations

import os

from .hook import install
from .table import named

install(named(os.environ["FAILOVER_MUTANT"]))
