"""The bench of law measures what it says, on fleets small enough to try; its oracle would see a mistake."""

from __future__ import annotations

import random

import pytest

from bench import policy as bench
from router_sync.policy.law import law_of


def test_the_rules_are_of_the_usual_kinds_and_each_is_for_somebody() -> None:
    of = bench.fleet(random.Random(bench.SEED), 10, 10, 100, bench.usual())
    law = law_of(of)
    found = {denial.ref for key in law.rows for end in of.endpoints for denial in law.denials(key, end.name)}
    assert bench.RULES == 20
    assert len(found) >= 15, "most of them deny somebody something"
    assert 0.02 < law.may.mean() < 0.9


def test_speed_counts_pairs_of_fleets_that_differ() -> None:
    rate, pairs = bench.speed(2, 4, 5, 3)
    assert pairs == 3 * (2 * 4) * 5
    assert rate > 0
    rng = random.Random(1)
    assert bench.fleet(rng, 2, 4, 5, ()) != bench.fleet(rng, 2, 4, 5, ())


def test_all_ways_look_at_every_pair() -> None:
    of = bench.fleet(random.Random(1), 3, 4, 7, bench.usual())
    assert bench.one_by_one(of) == 3 * 4 * 7
    assert bench.by_table(bench.table(of)) == 3 * 2 * 7, "of the first of two services"


def test_random_pairs_are_denied_and_allowed_and_nothing_differs() -> None:
    found = bench.fuzz(1500)
    assert found["cases"] >= 1500
    assert 0.1 < found["denied"] / found["cases"] < 0.99
    assert (found["breaches"], found["strict"], found["reasons"]) == (0, 0, 0)


@pytest.mark.parametrize("wrong", ["breaches", "strict"])
def test_the_oracle_sees_a_law_that_is_too_lax_or_too_strict(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(of: bench.Fleet) -> bench.Law:
        law = law_of(of)
        law.may[:] = wrong == "breaches"
        return law

    monkeypatch.setattr(bench, "law_of", mistaken)
    assert bench.fuzz(3000)[wrong] > 0
