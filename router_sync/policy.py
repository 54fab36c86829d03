"""Law: which request class may be processed at which endpoint, and why not. It fails closed.

Compiled once per fleet into a mask of flows x endpoints; the reasons are kept beside it. Rules come before score and
shares: what is forbidden has no price. Grows by further rules in `_RULES`, each a function of class and endpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.contract.records import Endpoint, Fleet, RequestClass

Row = tuple[str, str]
"""(service, class)"""


def _place(request: RequestClass, endpoint: Endpoint) -> str | None:
    if not request.jurisdictions or endpoint.jurisdiction in request.jurisdictions:
        return None
    return f"{request.name} may be processed in {', '.join(request.jurisdictions)} only, not in {endpoint.jurisdiction}"


_RULES: Final[tuple[Callable[[RequestClass, Endpoint], str | None], ...]] = (_place,)


def forbidden(request: RequestClass, endpoint: Endpoint) -> str | None:
    """Why `request` must not be processed at `endpoint`; None: it may."""
    return next((reason for rule in _RULES if (reason := rule(request, endpoint)) is not None), None)


@dataclass(frozen=True, slots=True)
class Masks:
    """`may[row, column]`: whether a (service, class) may use an endpoint. A pair that is not here may not."""

    rows: dict[Row, int]
    columns: dict[str, int]
    may: NDArray[np.bool_]
    reasons: dict[tuple[int, int], str]

    def allows(self, service: str, class_: str, endpoint: str) -> bool:
        """Whether the pair is known and allowed."""
        row, column = self.rows.get((service, class_)), self.columns.get(endpoint)
        return row is not None and column is not None and bool(self.may[row, column])

    def allowed(self, service: str, class_: str) -> frozenset[str]:
        """The endpoints that a (service, class) may use; none when it is not known."""
        row = self.rows.get((service, class_))
        if row is None:
            return frozenset()
        return frozenset(name for name, may in zip(self.columns, self.may[row].tolist(), strict=True) if may)

    def why_not(self, service: str, class_: str, endpoint: str) -> str | None:
        """The reason a known pair is forbidden; None when it is allowed."""
        if self.allows(service, class_, endpoint):
            return None
        at = self.rows.get((service, class_), -1), self.columns.get(endpoint, -1)
        return self.reasons.get(at, "not in the fleet")


def masks(fleet: Fleet) -> Masks:
    """The law of `fleet` over (service, class) x endpoint, with a reason for each pair that is not allowed."""
    pairs = [(service, class_) for service in fleet.services for class_ in service.classes]
    may = np.zeros((len(pairs), len(fleet.endpoints)), np.bool_)
    reasons: dict[tuple[int, int], str] = {}
    for row, (service, class_) in enumerate(pairs):
        for column, endpoint in enumerate(fleet.endpoints):
            offered = service.name in endpoint.services
            reason = forbidden(class_, endpoint) if offered else f"does not serve {service.name}"
            if reason is None:
                may[row, column] = True
            else:
                reasons[row, column] = reason
    return Masks(
        {(service.name, class_.name): row for row, (service, class_) in enumerate(pairs)},
        {endpoint.name: column for column, endpoint in enumerate(fleet.endpoints)},
        may,
        reasons,
    )
