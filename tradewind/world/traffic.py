"""The requests of one step, from their arrival to their end: gateways pick, endpoints answer or fail, some are tried
again, and everything is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from tradewind.world.bundle import Bundle
from tradewind.world.engine import Engine, Span
from tradewind.world.gateway import Gateway
from tradewind.world.ground import Counts, Ground
from tradewind.world.ledger import Ledger
from tradewind.world.work import Job


@dataclass(slots=True)
class Step:
    """What came of one step."""

    span: Span
    asked: Counts
    """[F]"""
    answered: Counts
    """[F, E]"""
    trouble: int = 0
    """Requests that were shed, failed, or put back."""


@dataclass(slots=True)
class Traffic:
    """Carries steps over the same gateways, endpoints and accounts."""

    ground: Ground
    engine: Engine
    gateways: Sequence[Gateway]
    ledger: Ledger
    rng: Generator
    flows_of: dict[str, list[int]] = field(init=False)
    """Origin to its flows."""
    share_of: dict[str, list[Gateway]] = field(init=False)
    """Origin to the gateways its requests are spread over."""

    def __post_init__(self) -> None:
        self.flows_of, self.share_of = {}, {}
        for flow, known in enumerate(self.ground.flows):
            self.flows_of.setdefault(known.origin, []).append(flow)
        for gateway in self.gateways:
            self.share_of.setdefault(gateway.origin, []).append(gateway)

    def carry(self, span: Span, arrived: Counts, jobs: Mapping[int, Sequence[tuple[Job, int]]]) -> Step:
        """A step in which `arrived` [F] requests come, and jobs send theirs."""
        asked = arrived.copy()
        for flow, due in jobs.items():
            asked[flow] += sum(count for _, count in due)
        step = Step(span, asked, np.zeros(self.ground.rtt_ms.shape, np.int64))
        bundles = self._sent(span, asked)
        for gateway in self.gateways:
            gateway.answered(b for b in bundles if b.gateway is gateway)
            gateway.sight.probe()
        self._settle(step, bundles, jobs)
        return step

    def _sent(self, span: Span, asked: Counts) -> list[Bundle]:
        """All requests at the endpoints that answered them, or did not."""
        fresh = [bundle for gateway in self.gateways for bundle in self._asked(gateway, span, asked)]
        bundles: list[Bundle] = []
        while fresh:
            bundles += fresh
            fresh = [again for miss in self.engine.meet(fresh) for again in miss.bundle.gateway.again(miss)]
        return bundles

    def _asked(self, gateway: Gateway, span: Span, asked: Counts) -> Iterable[Bundle]:
        sharing = self.share_of[gateway.origin]
        of, part = len(sharing), sharing.index(gateway)
        mine = {flow: (int(asked[flow]) + of - 1 - part) // of for flow in self.flows_of[gateway.origin]}
        return gateway.send(span, {flow: count for flow, count in mine.items() if count}, self._let_in)

    def _let_in(self, count: int, share: float) -> int:
        return int(self.rng.binomial(count, share))

    # ------------------------------------------------------------ accounts

    def _settle(self, step: Step, bundles: Iterable[Bundle], jobs: Mapping[int, Sequence[tuple[Job, int]]]) -> None:
        late = self._late(bundles)
        for gateway in self.gateways:
            for (flow, end), row in gateway.rows.items():
                self.ledger.sent(flow, end, row.requests)
                step.answered[flow, end] += row.ok
        for flow in np.flatnonzero(step.asked).tolist():
            self._close(step, flow, late.get(flow, 0), jobs.get(flow, ()))

    def _late(self, bundles: Iterable[Bundle]) -> dict[int, int]:
        """Flow to the answers that took longer than its SLO, what was lost at other endpoints included."""
        late: dict[int, int] = {}
        for bundle in bundles:
            flow, end = bundle.flow, bundle.end
            limit_ms = float(self.ground.slo_ms[flow] - self.ground.rtt_ms[flow, end]) - bundle.waited_ms
            if count := self.engine.beyond(end, limit_ms, bundle.ok):
                late[flow] = late.get(flow, 0) + count
        return late

    def _close(self, step: Step, flow: int, late: int, jobs: Sequence[tuple[Job, int]]) -> None:
        """What became of one flow's requests. Work that was turned away goes back to its job."""
        at = [gateway.counts[flow] for gateway in self.gateways if flow in gateway.counts]
        shed, failed = sum(counts.shed for counts in at), sum(counts.failed for counts in at)
        step.trouble += shed + failed
        answered = int(step.answered[flow].sum())
        self.ledger.ask(step.span, flow, int(step.asked[flow]))
        if not jobs:
            self.ledger.end(step.span, flow, served=answered - late, late=late, shed=shed, failed=failed)
            return
        late = _handed_out(jobs, answered, step.span.until_s)
        self.ledger.ask(step.span, flow, answered - int(step.asked[flow]))
        self.ledger.end(step.span, flow, served=answered - late, late=late)


def _handed_out(jobs: Sequence[tuple[Job, int]], answered: int, now_s: float) -> int:
    """Give answers to jobs, the most pressing first, and what was not answered back to them; how many came late."""
    late = 0
    for job, count in sorted(jobs, key=lambda due: due[0].load.deadline_at_s):
        got = min(count, answered)
        answered -= got
        job.left += count - got
        late += got if now_s > job.load.deadline_at_s else 0
    return late
