"""A world before it begins: all that happens in it, whatever is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streams.contract.records import Fleet
from tradewind.world.demand import Demand
from tradewind.world.engine import Fault
from tradewind.world.pace import CALM_S
from tradewind.world.replicas import Lending
from tradewind.world.reports import SLOT_S
from tradewind.world.series import Series
from tradewind.world.timeline import What
from tradewind.world.work import Load


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a scenario is made into; another caller fills it from recorded traces."""

    fleet: Fleet
    """Each endpoint has a pool of its own."""
    start_s: float
    """Unix seconds, a multiple of 60."""
    demand: Demand
    price: Mapping[int, Series] = field(default_factory=dict)
    """By endpoint number, $/h of a replica; what is left out has its list price, and is not told."""
    carbon: Mapping[str, Series] = field(default_factory=dict)
    """By grid zone, g/kWh."""
    lending: Mapping[int, Lending] = field(default_factory=dict)
    """By endpoint number; what is left out lends as many as are wanted."""
    faults: Sequence[Fault] = ()
    work: Sequence[Load] = ()
    """Jobs that may wait; a flow that has some has no other demand."""
    gateways: int = 1
    """Of each origin."""
    cold_start_s: float | None = None
    """Of every endpoint; None: as the fleet declares."""
    report_delay_s: float = 0.0
    """From what a gateway has seen to the topics."""
    table_delay_s: float = 0.0
    """From the topics to what a gateway does."""
    calm_s: int = CALM_S
    """The longest step."""
    slot_s: float = SLOT_S
    """Of arrivals: 1, 2, 5 or 10. Real gateways count by the second; few slots make a day short."""
    notes: Sequence[tuple[float, What, str]] = ()
    """What is told in the timeline besides: when, what, in words."""
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what the world could not keep apart."""
        pools = [end.pool for end in self.fleet.endpoints]
        if twice := sorted({pool for pool in pools if pools.count(pool) > 1}):
            raise ValueError(f"the pool {twice[0]} has several endpoints: give each another instance or zone")
        if self.start_s % 60:
            raise ValueError(f"start_s {self.start_s} is no multiple of 60: steps lie on multiples of their length")

    def moments(self) -> Iterator[float]:
        """When something is known to happen."""
        for fault in self.faults:
            yield from (fault.from_s, fault.until_s)
        for lending in self.lending.values():
            for at_s in lending.most.at_s:
                yield from (at_s - lending.notice_s, at_s)
        yield from (at_s for at_s, _, _ in self.notes)
