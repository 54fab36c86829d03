"""The load curve: what it says is a pure function of load and seed."""

import random

import pytest

from tradewind.pretend import curve


def test_time_to_first_token_rises_with_load_and_ends_at_a_ceiling() -> None:
    at = [curve.ttft_ms(40.0, load) for load in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 5.0)]
    assert at[0] == 40.0
    assert at == sorted(at)
    assert at[-1] == at[-2] == pytest.approx(40.0 + 6.0 * 0.98 / 0.02)


def test_a_negative_load_counts_as_idle() -> None:
    assert curve.ttft_ms(40.0, -1.0) == 40.0


def test_noise_repeats_with_its_seed_and_lies_around_one() -> None:
    first = [curve.noise(random.Random(7), 0.2) for _ in range(3)]
    one, other = random.Random(7), random.Random(7)
    drawn = sorted(curve.noise(one, 0.2) for _ in range(2001))
    assert first[0] == first[1] == first[2]
    assert drawn == sorted(curve.noise(other, 0.2) for _ in range(2001))
    assert drawn[1000] == pytest.approx(1.0, abs=0.02)
    assert curve.noise(random.Random(7), 0.0) == 1.0


def test_slots_carry_the_capacity_even_when_each_request_takes_longest() -> None:
    slots = curve.slots_for(40.0, 40.0, 5.0, 28.0)
    longest_s = (curve.ttft_ms(40.0, 9.0) + 28.0 * curve.between_ms(5.0, 9.0)) / 1000.0
    assert slots - 1 < 40.0 * longest_s <= slots


def test_the_rate_follows_steady_arrivals_and_fades_in_silence() -> None:
    rate = curve.Rate(memory_s=2.0)
    for number in range(1000):
        rate.add(number * 0.05)
    assert rate.get(49.95) == pytest.approx(20.0, rel=0.05)
    assert rate.get(59.95) < 0.2
