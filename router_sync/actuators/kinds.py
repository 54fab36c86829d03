"""The kinds of actuators: a line each. A kind is one file: its entry, its class, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

from router_sync.actuators import aws_asg, dry_run, keda, kubernetes, webhook
from router_sync.actuators.around import Around
from router_sync.actuators.entry import Entry
from router_sync.actuators.protocol import Actuator


class Kind(NamedTuple):
    """`opened(entry, acts, around)`: the actuator while its context lasts; raises Stop for what it lacks."""

    entry: type[Entry]
    opened: Callable[[Any, bool, Around], AbstractAsyncContextManager[Actuator]]


KINDS: Final[Mapping[str, Kind]] = {
    "dry_run": Kind(dry_run.DryRunEntry, dry_run.opened),
    "kubernetes": Kind(kubernetes.KubernetesEntry, kubernetes.opened),
    "aws_asg": Kind(aws_asg.AwsAsgEntry, aws_asg.opened),
    "keda": Kind(keda.KedaEntry, keda.opened),
    "webhook": Kind(webhook.WebhookEntry, webhook.opened),
}
