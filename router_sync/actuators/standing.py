"""One pool: what is planned of it, what was seen and done, and what to do next. No clock and no network in here.

    plan heard ─► in force? ─► due? ─► one order for the actuator ─► receipt, trouble, what was seen ─► said

An operator's plan goes first while it holds; beneath it the planner's last word waits. A plan is carried out once: what
somebody else changes afterwards stays changed until the next plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from router_sync.actuators.bounds import Bounds, clamped, one_step
from router_sync.actuators.entry import Entry
from router_sync.actuators.launches import Launches
from router_sync.actuators.protocol import Receipt, Replicas
from streams.contract.records import Capacity, CapacityPlan

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
MOST_ASKED_S: Final = 600.0
"""Whoever asks us to wait longer is asked again after this."""
Kind = Literal["later", "refused", "stop"]


class Trouble(NamedTuple):
    """Why a verb of an actuator failed. `after_s`: how long the other side asks to wait."""

    kind: Kind
    why: str
    after_s: float | None = None


class Brought(NamedTuple):
    """What came of an errand that began and ended at these times."""

    began_at_s: float
    at_s: float
    seen: Replicas | None = None
    receipt: Receipt | None = None
    blind: Trouble | None = None
    """Why nothing was seen; None with nothing seen: there is nothing to see."""
    trouble: Trouble | None = None
    """Why the plan was not carried out."""


class Order(NamedTuple):
    """What an actuator is to do: `plan`, which is the plan `of` within bounds, or a step on the way to it."""

    of: str
    plan: CapacityPlan

    @property
    def last(self) -> bool:
        """Whether nothing of the plan is left to do after it."""
        return self.plan.plan_id == self.of


@dataclass(slots=True)
class Patience:
    """Longer waits after each failure in a row: 1 s, 2 s, 4 s … a minute; a minute at once where a human has to act."""

    tries: int = 0
    again_at_s: float = -math.inf
    why: str = ""

    def failed(self, trouble: Trouble, at_s: float) -> None:
        """One more failure."""
        self.tries, self.why = self.tries + 1, trouble.why
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.tries - 1, 10))
        wait_s = LONGEST_WAIT_S if trouble.kind == "stop" else wait_s
        self.again_at_s = at_s + max(wait_s, min(trouble.after_s or 0.0, MOST_ASKED_S))

    def over(self) -> None:
        """It went well."""
        self.tries, self.again_at_s, self.why = 0, -math.inf, ""


@dataclass(slots=True)
class Standing:
    """What one worker knows of one pool. Times are unix seconds."""

    planned: CapacityPlan | None = None
    """The planner's last."""
    ordered: CapacityPlan | None = None
    """An operator's last."""
    held: tuple[float, float] = (-math.inf, -math.inf)
    """When an owner before us said that an operator's plan holds the pool, and until when."""
    released_at_s: float = -math.inf
    """The last time all plans were taken back."""
    receipt: str | None = None
    """The plan that was carried out last."""
    answered: str | None = None
    """The plan that needs no more: carried out, refused, or said what it would do."""
    outcome: str = ""
    """What came of it."""
    set_to: int | None = None
    """What the target was set to last, by us."""
    seen: Replicas | None = None
    seen_at_s: float | None = None
    looked_at_s: float = -math.inf
    """When the last look began, whatever came of it; never: nothing is changed before it."""
    cools_from_s: float = -math.inf
    """The last change; after taking over: the last word of the owner before."""
    launches: Launches = field(default_factory=Launches)
    looking: Patience = field(default_factory=Patience)
    doing: Patience = field(default_factory=Patience)

    # ------------------------------------------------------------ planned

    def hear(self, plan: CapacityPlan) -> bool:
        """Take in a plan; whether it is another than the one before."""
        held = self.ordered if plan.by else self.planned
        if held is not None and plan.made_at_s < held.made_at_s:
            return False
        if plan.by:
            self.ordered = plan
        else:
            self.planned = plan
        if held is not None and plan.plan_id == held.plan_id:
            return False
        self.doing.over()
        return True

    def release(self, at_s: float) -> bool:
        """All plans are taken back, an operator's too; whether there was any."""
        held = self.planned is not None or self.ordered is not None or self.held[0] > self.released_at_s
        self.planned = self.ordered = None
        self.released_at_s = at_s
        return held

    def holds_until_s(self, now_s: float) -> float | None:
        """Until when an operator's plan holds the pool; None: none does."""
        said_at_s, until_s = self.held
        if self.ordered is not None and self.ordered.until_s is not None:
            until_s = self.ordered.until_s
        elif said_at_s <= self.released_at_s:
            return None
        return until_s if now_s < until_s else None

    def in_force(self, now_s: float) -> CapacityPlan | None:
        """The plan that counts now, carried out or not."""
        return self.planned if self.holds_until_s(now_s) is None else self.ordered

    # ------------------------------------------------------------ to do

    def current(self) -> int | None:
        """What the target is set to, as far as is known."""
        return self.seen.want if self.seen is not None and self.seen.want is not None else self.set_to

    def waits_for(self, plan: CapacityPlan, goal: int, entry: Entry) -> tuple[float, str]:
        """Until when `plan` is not carried out yet, and for what."""
        until_s, what = max(self._waits(plan, goal, entry))
        if not self._shrinks(plan, goal) or not entry.drain_s:
            return until_s, what
        return max(until_s, plan.made_at_s) + entry.drain_s, "what goes is counted out"

    def counts_out(self, plan: CapacityPlan, goal: int, entry: Entry, now_s: float) -> bool:
        """Whether what `plan` takes away is not to be counted on any more, and is there still."""
        open_ = plan.plan_id != self.answered and not self.grown_old(plan, entry, now_s)
        return open_ and self._shrinks(plan, goal) and now_s >= max(self._waits(plan, goal, entry))[0]

    def _waits(self, plan: CapacityPlan, goal: int, entry: Entry) -> list[tuple[float, str]]:
        waits = [(plan.not_before_s, "it is not to be before"), (self.doing.again_at_s, "it is tried again")]
        if self._shrinks(plan, goal) and not plan.by:
            waits.append((self.cools_from_s + entry.cool_down_s, "the pool cools down"))
        return waits

    def _shrinks(self, plan: CapacityPlan, goal: int) -> bool:
        return goal < (plan.have if (now := self.current()) is None else now)

    def due(self, bounds: Bounds, entry: Entry, now_s: float) -> Order | None:
        """What the actuator is to do now; None: nothing."""
        plan = self.in_force(now_s)
        if plan is None or plan.plan_id == self.answered or self.grown_old(plan, entry, now_s):
            return None
        goal, _ = clamped(plan.want, bounds, entry)
        if self.looked_at_s == -math.inf or now_s < self.waits_for(plan, goal, entry)[0]:
            return None
        step = one_step(self.current(), goal, entry)
        name = plan.plan_id if step == goal else f"{plan.plan_id[:100]}+{step}"
        return Order(plan.plan_id, msgspec.structs.replace(plan, plan_id=name, want=step))

    def grown_old(self, plan: CapacityPlan, entry: Entry, now_s: float) -> bool:
        """Whether it is too late for `plan`; never for one that was carried out before and has to be again."""
        until_s = plan.until_s if plan.until_s is not None else plan.made_at_s + entry.plan_age_s
        return now_s >= until_s and plan.plan_id != self.receipt

    def to_look(self, entry: Entry, now_s: float) -> bool:
        """Whether it is time to look."""
        return now_s >= max(self.looked_at_s + entry.observe_s, self.looking.again_at_s)

    # ------------------------------------------------------------ done and seen

    def take(self, order: Order, brought: Brought, entry: Entry) -> None:
        """What came of carrying `order` out."""
        if brought.receipt is not None and brought.receipt.taken:
            self._taken(order, brought.receipt, brought, entry)
        elif brought.receipt is not None:
            self._not_taken(order, brought.receipt, brought.at_s)
        elif brought.trouble is not None and brought.trouble.kind == "refused":
            self._answer(order.of, f"refused: {brought.trouble.why}")
        elif brought.trouble is not None:
            self.doing.failed(brought.trouble, brought.at_s)

    def _answer(self, plan_id: str, outcome: str) -> None:
        self.answered, self.outcome = plan_id, outcome
        self.doing.over()

    def _not_taken(self, order: Order, receipt: Receipt, at_s: float) -> None:
        if receipt.again_s is None:
            self._answer(order.of, receipt.note)
        else:
            self.doing.failed(Trouble("later", receipt.note, receipt.again_s), at_s)

    def _taken(self, order: Order, receipt: Receipt, brought: Brought, entry: Entry) -> None:
        self._answer(order.plan.plan_id, receipt.note or f"set to {receipt.want}")
        before, self.set_to, self.receipt = self.current(), receipt.want, order.plan.plan_id
        if not order.last:
            self.doing.again_at_s = brought.at_s + entry.observe_s
        if before != receipt.want:
            self.cools_from_s = brought.at_s
        if self.seen is not None and before is not None:
            self.launches.begin(max(0, receipt.want - before), brought.began_at_s)

    def look(self, brought: Brought) -> list[float]:
        """What was seen; how long the launches took that are ready now."""
        self.looked_at_s = brought.began_at_s
        if brought.blind is not None:
            self.looking.failed(brought.blind, brought.at_s)
            return []
        self.looking.over()
        before, self.seen, self.seen_at_s = self.seen, brought.seen, brought.at_s
        if self.seen is None:
            return []
        took_s = self.launches.arrive(max(0, self.seen.ready - (before or self.seen).ready), brought.at_s)
        if self.seen.want is not None:
            self.launches.at_most(self.seen.want - self.seen.ready)
        self.launches.failed += max(0, self.seen.failed - (before or self.seen).failed)
        return took_s

    def restore(self, said: Capacity, entry: Entry) -> None:
        """Go on from what an owner before us said; its last change was before that."""
        self.receipt, self.held = said.plan_id, (said.at_s, said.held_until_s or -math.inf)
        self.answered = None if entry.forgets else said.plan_id
        self.seen, self.seen_at_s = Replicas(said.ready, said.starting), said.at_s
        self.launches.before_s, self.launches.failed = said.cold_start_s, said.failed
        self.cools_from_s = said.at_s
