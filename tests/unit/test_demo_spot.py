"""The spot scenario: when machines are taken back, how answers are judged, and what is made of both."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from streams import signals
from streams.contract.errors import BadSetting
from streams.contract.records import Route, RoutingTable
from tests.unit.router_fleet import fleet
from tradewind.demo import parts, scenarios
from tradewind.demo.moves import counted
from tradewind.demo.parts.run import Run
from tradewind.demo.reclaim import Reclaimed, refuse_too_long, turns
from tradewind.demo.talks import TOKENS, Heard, Talks, Turn
from tradewind.load import Outcome, Target
from tradewind.pretend.ledger import Received
from tradewind.pretend.shape import DONE, text_of

# ---------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("notice_s", "lasts_s", "when"),
    [
        (30.0, 120.0, [(15.0, "a"), (50.0, "b"), (85.0, "a")]),
        (0.0, 60.0, [(15.0, "a"), (35.0, "b"), (55.0, "a")]),
        (120.0, 160.0, [(15.0, "a")]),
        (120.0, 138.0, []),
    ],
)
def test_one_machine_after_the_other_is_taken_back_while_there_is_time_to_see_what_it_does(
    notice_s: float, lasts_s: float, when: list[tuple[float, str]]
) -> None:
    assert list(turns(["a", "b"], notice_s, lasts_s)) == when


def test_a_notice_that_nobody_would_get_is_refused_with_how_long_to_run() -> None:
    with pytest.raises(BadSetting, match="--seconds 139 or more"):
        refuse_too_long(120.0, 138.0)
    refuse_too_long(120.0, 139.0)
    refuse_too_long(120.0, None)


def test_all_machines_of_the_scenario_can_go_on_with_answers_and_some_are_never_taken_back() -> None:
    _, _, of = scenarios.load("spot")
    assert all(e.continues for e in of.endpoints)
    assert {e.market for e in of.endpoints} == {"spot", "on_demand"}
    stay = [e for e in of.endpoints if e.market != "spot"]
    assert sum(e.concurrency for e in stay) >= 2 * scenarios.load("spot").scenario.talks


# ---------------------------------------------------------------- judged word by word


def event(content: str | None = None, end: bool = False, id_: str = "A") -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": "length" if end else None}
    return b"data: " + json.dumps({"id": id_, "choices": [choice]}).encode() + b"\n\n"


WORDS = [text_of(n, 1) for n in range(3)]
GOOD = [*map(event, WORDS), event(end=True), DONE]


def heard(*pieces: bytes) -> Heard:
    one = Heard()
    for piece in pieces:
        one.feed(piece)
    return one


def test_an_answer_is_whole_however_it_was_cut() -> None:
    assert heard(*GOOD).whole(3)
    whole = b"".join(GOOD)
    for cut in range(len(whole)):
        assert heard(whole[:cut], whole[cut:]).whole(3)


@pytest.mark.parametrize(
    "pieces",
    [
        GOOD[:1] + GOOD[2:],  # a word is missing
        GOOD[:2] + GOOD[1:],  # one is said twice
        [GOOD[1], GOOD[0], *GOOD[2:]],
        GOOD[:-1],  # no end
        [*GOOD, DONE],
        GOOD[:3] + GOOD[4:],  # no reason why it ends
        [*GOOD[:2], event(WORDS[2], id_="B"), *GOOD[3:]],
        [*GOOD[:2], b'event: error\ndata: {"error":{"code":"x"}}\n\n', *GOOD[2:]],
    ],
)
def test_an_answer_with_any_flaw_is_not_whole(pieces: list[bytes]) -> None:
    assert not heard(*pieces).whole(3)


def test_answers_are_no_longer_than_the_run_and_none_is_begun_at_its_end() -> None:
    seen: list[Outcome] = []
    at_s = 0.0
    talks = Talks([Target("eu", "talk", "u", "k", "m")], 1, 0.04, 100.0, random.Random(1), lambda: at_s, seen.append)
    drawn = [talks._tokens() for _ in range(200)]
    assert all(tokens is not None and TOKENS[0] <= tokens <= 97 / 0.04 / 1.6 for tokens in drawn)
    at_s = 80.0
    assert all((tokens := talks._tokens()) is not None and tokens <= 265 for _ in range(50))
    at_s = 95.0
    assert talks._tokens() is None


# ---------------------------------------------------------------- measured


def turn(endpoint: str, began_s: float, ended_s: float, **more: Any) -> Turn:
    usual: dict[str, Any] = {"talk": "t", "able": True, "tokens": 9, "whole": True}
    return Turn(endpoint=endpoint, began_at_s=began_s, ended_at_s=ended_s, **(usual | more))


TAKEN = Reclaimed(endpoint="a", unix_s=1015.0, notice_at_s=15.0, killed_at_s=45.0)


def of(*some: Turn, **more: Any) -> dict[str, Any]:
    return parts.measured(Run(fleet=fleet(), outcomes=(), turns=some, **more), ["sessions_kept", "drained_s"])


def test_only_answers_that_were_there_between_notice_and_end_are_counted_as_kept_or_lost() -> None:
    found = of(
        turn("a", 0, 14),  # over before
        turn("a", 0, 20),
        turn("a", 10, 60, whole=False),
        turn("a", 40, 50, able=False, whole=False),
        turn("b", 10, 60, whole=False),  # elsewhere
        turn("a", 46, 50),  # another machine
        reclaimed=[TAKEN],
    )
    assert found["sessions_kept"] == 0.5
    assert found["sessions"] == {
        "threatened": 2, "whole": 1, "threatened_unable": 1, "whole_unable": 0, "answers": 6, "whole_answers": 3,
        "strayed": found["sessions"]["strayed"],
    }  # fmt: skip


def test_where_nobody_was_taken_back_nothing_is_claimed() -> None:
    found = of(turn("a", 0, 20))
    assert (found["sessions_kept"], found["drained_s"], found["drains"]) == (None, None, [])


def test_a_conversation_strays_when_it_begins_elsewhere_without_need() -> None:
    def strayed(*some: Turn) -> int:
        count: int = of(*some, reclaimed=[TAKEN])["sessions"]["strayed"]
        return count

    assert strayed(turn("a", 0, 5), turn("a", 6, 9), turn("b", 0, 5, talk="u")) == 0
    assert strayed(turn("a", 0, 5), turn("b", 6, 9)) == 1
    assert strayed(turn("a", 0, 5), turn("b", 20, 29)) == 0  # it had to
    assert strayed(turn("b", 0, 5), turn("c", 20, 29)) == 1


def table(*used: str) -> RoutingTable:
    shares = tuple(1.0 / len(used) for _ in used)
    route = Route(origin="eu", class_="talk", slo_p95_ms=300, endpoints=used, shares=shares)
    return RoutingTable(
        service="m", epoch=1, version=1, issued_at_s=0, expires_at_s=1e9, fleet_version=1, default_class="talk",
        endpoints=(), routes=(route,),
    )  # fmt: skip


def test_drained_is_when_neither_a_table_nor_a_request_leads_there_any_more() -> None:
    tables = [(14.0, table("b")), (15.2, table("a", "b")), (15.5, table("b"))]
    requests = [Received(at_s) for at_s in (1014.0, 1015.1, 1015.9, 1047.0)]
    assert of(reclaimed=[TAKEN], tables=tables)["drained_s"] == 0.5
    assert of(reclaimed=[TAKEN], tables=tables, received={"a": requests})["drained_s"] == 0.9
    assert of(reclaimed=[TAKEN], tables=tables[:2])["drained_s"] is None
    never = Reclaimed(endpoint="b", unix_s=1015.0, notice_at_s=15.0, killed_at_s=45.0)
    assert of(reclaimed=[TAKEN, never], tables=tables)["drained_s"] is None, "the worst of all counts"


def test_people_are_told_in_sentences() -> None:
    found = of(turn("a", 10, 60), reclaimed=[TAKEN], tables=[(15.5, table("b"))], moves={"moved: notice": 3})
    assert parts.told(found, ["sessions_kept", "drained_s"]) == [
        "1 of 1 answers under way where a machine was taken back came word for word; "
        "of 0 that cannot be continued 0 did",
        "streams there: 3 moved: notice",
        "a had notice at 15 s, died at 45 s, and got nothing new from 0.50 s after it on",
    ]


def test_what_gateways_count_is_read_from_their_metrics() -> None:
    before = counted(signals.exposition().decode())
    signals.LEFT.labels("lost", "nowhere").inc()
    after = counted(signals.exposition().decode())
    assert after - before == {"lost: nowhere": 1}
