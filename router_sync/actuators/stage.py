"""The stage: plans, the fleet and what was said before in; errands for the hands, and what they saw and did, out.

fold      the last plan of each pool, the newest fleet, what an owner before us said
advance   what is due ─► errands: look, or carry a plan out and look      (one pool never waits for another)
brought   receipts, trouble, replicas
view      a record for each pool of which there is news, and every SAY_S
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router_sync.actuators.bounds import Bounds, bounds_of
from router_sync.actuators.entry import Entry
from router_sync.actuators.section import Actuators
from router_sync.actuators.standing import Brought, Order, Standing
from router_sync.actuators.told import capacity
from router_sync.state import outdated
from streams import signals
from streams.contract.errors import shown
from streams.contract.records import Capacity, CapacityPlan, Fleet
from streams.contract.topics import CAPACITY_PLAN
from streams.runtime.step import Errand, Heard, Refusal

SAY_S: Final = 10.0
"""What has not changed is said again after this."""
POOLS: Final = 10_000
_GAUGED: Final = ("want", "ready", "starting")


@dataclass(slots=True)
class Pools:
    """All pools as one worker knows them."""

    fleet: Fleet | None = None
    bounds: dict[str, Bounds] = field(default_factory=dict)
    """Of the pools of the fleet; others are remembered and not touched."""
    standings: dict[str, Standing] = field(default_factory=dict)
    errands: dict[str, Errand] = field(default_factory=dict)
    """What was due at the last advance, and has not been brought since."""
    last: dict[str, tuple[Capacity, float]] = field(default_factory=dict)
    """What was said last of each pool, and when."""
    urgent: bool = False
    said: tuple[Capacity, ...] = ()
    said_at_s: float = -math.inf


class CarryOut:
    """Carries plans out with the actuators of `section`."""

    def __init__(self, section: Actuators) -> None:
        self.section = section
        self._entries: dict[str, Entry] = {}

    def empty(self) -> Pools:
        """Nothing was heard; nothing is done until there is a fleet."""
        return Pools()

    def entry(self, pool: str) -> Entry:
        """Who has `pool`."""
        if pool not in self._entries:
            self._entries[pool] = self.section.entries[self.section.number(pool)]
        return self._entries[pool]

    # ------------------------------------------------------------ heard

    def screen(self, state: Pools, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse plans whose key is not their pool, since the topic is compacted by it; and more pools than POOLS."""
        if heard.topic != CAPACITY_PLAN.name:
            return
        known = set(state.standings)
        for position, plan in zip(heard.positions.tolist(), heard.records, strict=True):
            key = heard.batch.messages[position].key or b""
            if key != plan.pool.encode():
                yield Refusal(position, "key", shown(key[:128]), f"is not the plan's pool, {plan.pool}")
            elif plan.pool not in known and len(known) >= POOLS:
                yield Refusal(position, "pool", shown(plan.pool), f"is one more than the {POOLS} that are kept apart")
            known.add(plan.pool)

    def fold(self, state: Pools, heard: Heard[Any]) -> Pools:
        """Take in plans, tombstones of plans, fleets, and what owners before us said."""
        state.urgent = False
        passed = dict(zip(heard.positions.tolist(), heard.records, strict=True))
        for position, message in enumerate(heard.batch.messages):
            match passed.get(position):
                case CapacityPlan() as plan:
                    state.urgent |= _of(state, plan.pool).hear(plan)
                case Capacity() as said:
                    self._restore(state, said)
                case Fleet() as fleet:
                    state.urgent |= _adopt(state, fleet)
                case None if message.value is None and heard.topic == CAPACITY_PLAN.name:
                    pool = (message.key or b"").decode("utf-8", "replace")
                    state.urgent |= _release(state, pool, message.timestamp / 1000)
        return state

    def urgent(self, state: Pools) -> bool:
        """There is another plan, or another fleet."""
        return state.urgent

    def _restore(self, state: Pools, said: Capacity) -> None:
        """Unless it is our own word that comes back."""
        ours = state.last.get(said.pool)
        if ours is None or said.at_s > ours[0].at_s:
            _of(state, said.pool).restore(said, self.entry(said.pool))

    # ------------------------------------------------------------ decided

    def advance(self, state: Pools, now_s: float) -> Pools:
        """What is due now, and what there is to say."""
        state.errands = dict(self._due(state, now_s))
        state.said, state.said_at_s = tuple(self._news(state, now_s)), now_s
        state.last |= {said.pool: (said, now_s) for said in state.said}
        return state

    def _due(self, state: Pools, now_s: float) -> Iterator[tuple[str, Errand]]:
        for pool, bounds in state.bounds.items():
            standing, entry = _of(state, pool), self.entry(pool)
            patience_s = entry.launch_s or standing.launches.patience_s(bounds.cold_start_s)
            if late := standing.launches.give_up(now_s, patience_s):
                signals.event("launch_failed", "warning", pool=pool, count=late, after_s=round(patience_s, 1))
            order = standing.due(bounds, entry, now_s)
            if order is not None or standing.to_look(entry, now_s):
                yield pool, Errand(pool, order)

    def _news(self, state: Pools, now_s: float) -> Iterator[Capacity]:
        for pool, bounds in state.bounds.items():
            entry, standing = self.entry(pool), _of(state, pool)
            said = capacity(pool, standing, bounds, entry, now_s, acts=self.section.acts(entry))
            if said is None:
                continue
            last, at_s = state.last.get(pool, (None, -math.inf))
            if last is None or now_s - at_s >= SAY_S or _differs(last, said):
                yield said

    def view(self, state: Pools, now_s: float) -> Iterable[Capacity]:
        """The records made for this moment; mostly none."""
        return state.said if state.said_at_s == now_s else ()

    # ------------------------------------------------------------ done

    def errands(self, state: Pools) -> Iterable[Errand]:
        """What was due when time was last looked at: looks (None), and orders to carry out before a look."""
        return tuple(state.errands.values())

    def brought(self, state: Pools, errand: Errand, what: Brought) -> Pools:
        """The state that knows what came of `errand`."""
        state.errands.pop(errand.on, None)
        standing, entry = _of(state, errand.on), self.entry(errand.on)
        if errand.what is not None:
            standing.take(errand.what, what, entry)
            _tell(errand.on, errand.what, what, entry, again=standing.doing.tries > 1)
        for took_s in standing.look(what):
            signals.LAUNCH_S.labels(entry.kind).observe(took_s)
        if standing.looking.tries == 1:
            signals.event("pool_not_seen", "warning", pool=errand.on, kind=entry.kind, reason=standing.looking.why)
        _gauge(errand.on, standing)
        return state

    def leave(self, state: Pools) -> None:
        """Take gauges back: the pools are another worker's now."""
        for pool in state.standings:
            for what in _GAUGED:
                with contextlib.suppress(KeyError):  # never seen
                    signals.REPLICAS.remove(pool, what)


def _of(state: Pools, pool: str) -> Standing:
    return state.standings.setdefault(pool, Standing())


def _adopt(state: Pools, fleet: Fleet) -> bool:
    """Plan for the newest fleet; the router says what is wrong with others."""
    if state.fleet == fleet or outdated(state.fleet, fleet) is not None:
        return False
    state.fleet, state.bounds = fleet, dict(bounds_of(fleet))
    return True


def _release(state: Pools, pool: str, at_s: float) -> bool:
    if pool not in state.standings and len(state.standings) >= POOLS:
        return False
    return _of(state, pool).release(at_s)


def _differs(last: Capacity, now: Capacity) -> bool:
    return msgspec.structs.replace(now, at_s=last.at_s) != last


def _tell(pool: str, order: Order, what: Brought, entry: Entry, *, again: bool) -> None:
    """A count of what came of an order: taken, said (not done, on purpose), refused, later or stop. And an event,
    unless it came of it before."""
    receipt, trouble = what.receipt, what.trouble
    outcome = trouble.kind if trouble is not None else "taken" if receipt is not None and receipt.taken else "said"
    why = trouble.why if trouble is not None else receipt.note if receipt is not None else ""
    signals.PLANS.labels(entry.kind, outcome).inc()
    if again:
        return
    level: signals.Level = "warning" if trouble is not None else "info"
    signals.event(
        "plan_carried_out" if outcome == "taken" else "plan_not_carried_out", level, pool=pool, kind=entry.kind,
        plan_id=order.plan.plan_id, want=order.plan.want, outcome=outcome, note=why[:300],
        reason=order.plan.reason[:300],
    )  # fmt: skip


def _gauge(pool: str, standing: Standing) -> None:
    if (seen := standing.seen) is not None:
        for what, count in zip(_GAUGED, (seen.want, seen.ready, seen.starting), strict=True):
            if count is not None:
                signals.REPLICAS.labels(pool, what).set(count)
