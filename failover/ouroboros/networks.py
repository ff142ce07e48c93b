"""The public networks' magic numbers. Source: the networks' own genesis files, as gouroboros lists them."""

from __future__ import annotations

from collections.abc import Mapping

NETWORKS: Mapping[str, int] = {"mainnet": 764824073, "preprod": 1, "preview": 2, "sanchonet": 4}
