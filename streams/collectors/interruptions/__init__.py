"""Notices of interruptions, as the metadata service of a cloud says them to the machine that is about to go.

    metadata service ── fetch ─► bytes ── parse ─► Coming ── agent: once each ─► interruptions.v1

A provider is one file and a line in `PROVIDERS`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from streams.collectors.interruptions.agent import Agent, Coming, Provider, Unreadable
from streams.collectors.interruptions.aws import Aws
from streams.collectors.interruptions.azure import Azure
from streams.collectors.interruptions.gcp import Gcp

PROVIDERS: Final[Mapping[str, Callable[..., Provider]]] = {"aws": Aws, "azure": Azure, "gcp": Gcp}
"""By name. Each takes `url`, of another metadata service than its own."""

__all__ = ["PROVIDERS", "Agent", "Coming", "Provider", "Unreadable"]
