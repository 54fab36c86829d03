"""Budgets of a day kept by prices: an online dual ascent, one price a budget (after GAR-PD, arXiv 2605.11603).

    spent so far │        ╱ · · · per_day          every second: rate of spending, as tables and prices have it
                 │    ╱╱ ·                         allowed rate: what is left, over what is left of the day
                 │ ╱╱ ·                            price += step x (rate / allowed - 1), within 0..most_price
                 └──────────────── day

A price makes dear or dirty endpoints dearer for the requests in scope, until spending keeps to its pace; no request is
refused for it. What is counted is what requests cost as they are priced (at capacity), not the bill of idle machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from router_sync.layout import Bools, Floats, Layout
from router_sync.score import Duals, Scores
from streams import signals
from streams.contract.records import Budget, Spent

DAY_S: Final = 86400.0
STEP: Final = 0.05
"""Of the highest price, a minute, when spending is twice as fast as allowed, or stands still."""
GAP_S: Final = 60.0
"""A longer silence between two looks is not counted: nobody knows what was spent."""
HUNDREDTH: Final = 0.01
"""Prices are told, and followed, in this part of the highest: so that they do not make a new table each second."""


@dataclass(slots=True)
class Account:
    """How one budget stands."""

    day_at_s: float
    spent: float = 0.0
    price: float = 0.0


@dataclass(slots=True)
class Budgets:
    """Accounts by name."""

    accounts: dict[str, Account] = field(default_factory=dict)
    at_s: float | None = None

    def restore(self, said: Iterable[Spent]) -> None:
        """Go on from what a table says, where nothing is known of a budget."""
        for spent in said:
            self.accounts.setdefault(spent.budget, Account(spent.day_at_s, spent.spent, spent.price))

    def advance(self, plan: Layout, scores: Scores, served_rps: Floats, now_s: float) -> None:
        """Count what `served_rps` [F, E] spent since the last look, and move prices."""
        gone_s = 0.0 if self.at_s is None else max(0.0, now_s - self.at_s)
        self.at_s = now_s
        known = {budget.name for budget in plan.fleet.budgets}
        for name in self.accounts.keys() - known:
            del self.accounts[name]
        for budget in plan.fleet.budgets:
            account = self.accounts.setdefault(budget.name, Account(now_s - now_s % DAY_S))
            rate = _rate(budget, plan, scores, served_rps)
            _count(account, budget, rate, gone_s if gone_s <= GAP_S else 0.0, now_s)
            signals.BUDGET_SPENT.labels(budget.name).set(account.spent)
            signals.BUDGET_PRICE.labels(budget.name).set(account.price)

    def duals(self, plan: Layout) -> Duals | None:
        """What budgets add to dollars and grams of each flow; None when none of them binds."""
        per_usd, per_g = np.zeros(len(plan.flows)), np.zeros(len(plan.flows))
        for budget in plan.fleet.budgets:
            if (price := self._told(budget)) > 0:
                if budget.unit == "usd":
                    per_usd[in_scope(budget, plan)] += price
                else:
                    per_g[in_scope(budget, plan)] += price / 1000.0
        return Duals(per_usd, per_g) if per_usd.any() or per_g.any() else None

    def spent(self, plan: Layout) -> tuple[Spent, ...]:
        """As tables tell it."""
        return tuple(
            Spent(budget=b.name, day_at_s=a.day_at_s, spent=round(a.spent, 6), price=round(a.price, 6))
            for b in plan.fleet.budgets
            if (a := self.accounts.get(b.name)) is not None
        )

    def _told(self, budget: Budget) -> float:
        account = self.accounts.get(budget.name)
        unit = HUNDREDTH * budget.most_price
        return 0.0 if account is None else round(account.price / unit) * unit


def in_scope(budget: Budget, plan: Layout) -> Bools:
    """[F] the flows a budget speaks of."""
    return np.array(
        [
            budget.tenant in ("", flow.class_.tenant)
            and budget.service in ("", flow.service)
            and budget.class_ in ("", flow.class_.name)
            for flow in plan.flows
        ]
    )


def _rate(budget: Budget, plan: Layout, scores: Scores, served_rps: Floats) -> float:
    """Dollars or grams a second."""
    mine = served_rps[in_scope(budget, plan)]
    if budget.unit == "usd":
        return float((mine * scores.spend_usd[in_scope(budget, plan)]).sum())
    return float(mine.sum(axis=0) @ np.nan_to_num(scores.carbon_g))


def _count(account: Account, budget: Budget, rate: float, gone_s: float, now_s: float) -> None:
    day_at_s = now_s - now_s % DAY_S
    if day_at_s > account.day_at_s:
        account.day_at_s, account.spent = day_at_s, 0.0
    account.spent += rate * gone_s
    left_s = account.day_at_s + DAY_S - now_s
    allowed = max(0.0, budget.per_day - account.spent) / max(left_s, 1.0)
    ahead = 1.0 if allowed <= 0 else min(1.0, rate / allowed - 1.0)
    step = STEP * budget.most_price * ahead * gone_s / 60.0
    account.price = min(budget.most_price, max(0.0, account.price + step))
