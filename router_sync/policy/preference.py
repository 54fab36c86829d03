"""What rules wish for, as arrays beside the law: limits of latency, factors on parts of the objective, dollars.

Wishes forbid nothing. A rule of preference counts for a flow if it surely is for it: unknown facts wish for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from router_sync.policy.columns import Columns, hit, spoken_of
from router_sync.policy.facts import Facts, of_target, requests_of
from router_sync.policy.rules import LAW, Statute, statutes
from streams.contract.records import Fleet, Part, Policy

PARTS: Final[tuple[Part, ...]] = get_args(Part)
"""Of the objective, in the order of `weigh`'s columns."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Shapes: F flows, E endpoints."""

    limit_ms: Floats
    """[F] the least p95 at the caller that a rule asks for; infinity: none does."""
    weigh: Floats
    """[F, 5] factors on PARTS: the product of all rules; 1: as it is."""
    prefer_usd: Floats
    """[F, E] what a request costs more because it does not go where rules would have it."""


def preferences(fleet: Fleet) -> Preferences:
    """The wishes of all policies of `fleet`."""
    requests, targets = Columns(requests_of(fleet)), Columns([of_target(end) for end in fleet.endpoints])
    limit_ms, weigh = np.full(len(requests), np.inf), np.ones((len(requests), len(PARTS)))
    prefer_usd = np.zeros((len(requests), len(targets)))
    for rule in _wishes(fleet.policies):
        of = spoken_of(rule, requests)
        if rule.effect == "limit_p95_ms":
            limit_ms[of] = np.minimum(limit_ms[of], rule.rule.limit_p95_ms or np.inf)
        elif rule.effect == "weigh":
            weigh[of] *= [rule.rule.weigh.get(part, 1.0) for part in PARTS]
        else:
            prefer_usd += np.outer(of, ~hit(rule, targets)) * rule.rule.worth_usd
    return Preferences(limit_ms, weigh, prefer_usd)


def wishes_of(policies: tuple[Policy, ...], request: Facts) -> tuple[Statute, ...]:
    """The rules of preference that are for `request`."""
    return tuple(rule for rule in _wishes(policies) if rule.is_for(request))


def _wishes(policies: tuple[Policy, ...]) -> Iterator[Statute]:
    for policy in policies:
        yield from (rule for rule in statutes(policy) if rule.effect not in LAW)
