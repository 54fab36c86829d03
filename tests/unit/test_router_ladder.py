"""The blast-radius ladder: what falls with what, and what stays."""

from __future__ import annotations

from collections.abc import Iterable

from router_sync.ladder import Standing, ladder
from streams.contract.records import Endpoint, Verdict
from tests.unit.router_fleet import endpoint


def region(name: str, zones: str = "ab", each: int = 1, **more: str) -> list[Endpoint]:
    return [
        endpoint(f"{name}-{zone}{n}", "eu-west", region=name, zone=f"{name}-{zone}", **more)
        for zone in zones
        for n in range(each)
    ]


def standing(ends: list[Endpoint], down: Iterable[str], verdict: Verdict = "down") -> dict[str, Standing]:
    said = {e.name: Standing("up", "", "up") for e in ends}
    return ladder(ends, said | {name: Standing(verdict, "5 resets", verdict) for name in down})


def gone(found: dict[str, Standing]) -> set[str]:
    return {name for name, one in found.items() if not one.usable}


def test_one_dead_endpoint_says_nothing_of_its_neighbour() -> None:
    assert gone(standing(region("r1") + region("r2"), ["r1-a0"])) == {"r1-a0"}


def test_half_of_a_region_takes_the_other_half_along_and_says_so() -> None:
    found = standing(region("r1", "abcd") + region("r2", "abcd"), ["r1-a0", "r1-b0"])
    assert gone(found) == {"r1-a0", "r1-b0", "r1-c0", "r1-d0"}
    assert found["r1-c0"] == Standing("down", "region r1 down: 2 of 4 endpoints down", "up")
    assert found["r1-a0"].reason == "5 resets; region r1 down: 2 of 4 endpoints down"


def test_less_than_half_of_a_region_stays_by_itself() -> None:
    assert gone(standing(region("r1", "abcde") + region("r2", "abcde"), ["r1-a0", "r1-b0"])) == {"r1-a0", "r1-b0"}


def test_a_zone_falls_without_its_region() -> None:
    found = standing(region("r1", "abc", 3) + region("r2"), ["r1-a0", "r1-a1"])
    assert gone(found) == {"r1-a0", "r1-a1", "r1-a2"}
    assert found["r1-a2"].reason == "zone r1-a down: 2 of 3 endpoints down"


def test_a_provider_falls_when_two_of_its_regions_are_hit_but_not_for_one() -> None:
    mine = region("r1", "abc", provider="p") + region("r2", "abc", provider="p")
    others = region("r3", "abcdef", 2, provider="q")
    assert gone(standing(mine + others, ["r1-a0", "r1-b0", "r1-c0"])) == {"r1-a0", "r1-b0", "r1-c0"}
    found = standing(mine + others, ["r1-a0", "r1-b0", "r2-a0"])
    assert gone(found) == {e.name for e in mine}
    assert found["r2-b0"].reason == "provider p down: 3 of 6 endpoints down"


def test_neighbours_stay_when_too_little_would_be_left() -> None:
    ends = region("r1", "abcd", provider="p") + region("r2", "a", provider="p")
    found = standing(ends, ["r1-a0", "r1-b0"])
    assert gone(found) == {"r1-a0", "r1-b0"}
    assert "kept, too little would be left" in found["r1-c0"].reason


def test_what_is_dead_by_its_own_evidence_goes_even_when_it_is_everything() -> None:
    ends = region("r1") + region("r2")
    assert gone(standing(ends, [e.name for e in ends])) == {e.name for e in ends}


def test_silence_and_ignorance_evacuate_nobody() -> None:
    ends = region("r1") + region("r2")
    assert not gone(standing(ends, [e.name for e in ends], "silent"))
    assert not gone(ladder(ends, {}))


def test_a_provider_of_one_region_is_called_by_its_region() -> None:
    found = standing(region("r1", "ab", provider="p") + region("r2", "abcd", provider="q"), ["r1-a0", "r1-b0"])
    assert found["r1-a0"].reason.endswith("region r1 down: 2 of 2 endpoints down")
