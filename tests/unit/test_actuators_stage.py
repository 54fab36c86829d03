"""Who carries plans out, in virtual time: once, within bounds, no pool waiting for another, and told as it was."""

from __future__ import annotations

from itertools import pairwise

import pytest

from router_sync.actuators.protocol import Receipt
from router_sync.actuators.standing import Trouble
from streams import signals
from streams.contract import topics
from streams.contract.records import Capacity
from tests.unit.pretend_cloud import T0, Cloud, CloudEntry, Forgetful, Shop, Target, end
from tests.unit.router_fleet import fleet

AWAY = Trouble("later", "nobody takes the connection")


# ---------------------------------------------------------------- carried out


def test_a_plan_is_carried_out_at_once_and_once_and_its_receipt_is_said() -> None:
    shop = Shop()
    shop.run(3)
    shop.plan(5)
    shop.run(0.1)
    assert shop.cloud.done == [("p1", 5, pytest.approx(3.0, abs=0.05))]
    assert (shop.last.plan_id, shop.last.starting, shop.last.note) == ("p1", 3, "p1: set to 5")
    shop.run(300)
    assert len(shop.cloud.done) == 1


def test_nothing_is_done_before_it_is_known_what_there_is() -> None:
    shop = Shop()
    shop.plan(5)
    shop.run(1)
    first, second = shop.cloud.ran[:2]
    assert (first[1], second[1]) == (None, "p1")


def test_a_plan_waits_for_its_time_and_says_so() -> None:
    shop = Shop()
    shop.plan(5, not_before_s=T0 + 30)
    shop.run(29)
    assert shop.cloud.done == []
    assert "5 wanted, waits until 08:00:30Z: it is not to be before" in shop.last.note
    shop.run(2)
    assert shop.cloud.done == [("p1", 5, 30.0)]


def test_the_last_plan_counts_and_an_older_one_that_comes_late_does_not() -> None:
    shop = Shop()
    shop.plan(5, not_before_s=T0 + 30)
    shop.run(1)
    shop.plan(7, "p2")
    shop.plan(3, "p0", made_at_s=T0 - 60)
    shop.run(60)
    assert [done[:2] for done in shop.cloud.done] == [("p2", 7)]


def test_a_plan_that_grew_old_before_it_could_be_carried_out_is_not() -> None:
    shop = Shop(CloudEntry(pool="*", plan_age_s=60.0))
    shop.plan(5, made_at_s=T0 - 61)
    shop.run(5)
    assert shop.cloud.done == []
    assert shop.last.note == "p1: it grew old before it was carried out"
    shop.plan(6, "p2", made_at_s=T0 - 61, until_s=T0 + 3600)
    shop.run(5)
    assert [done[:2] for done in shop.cloud.done] == [("p2", 6)], "it says itself how long it holds"


def test_a_surge_jumps_and_a_step_is_only_kept_to_where_it_is_asked_for() -> None:
    shop = Shop(CloudEntry(pool="*", most_step=3, observe_s=5.0))
    shop.plan(10)
    shop.run(20)
    assert [done[:2] for done in shop.cloud.done] == [("p1+5", 5), ("p1+8", 8), ("p1", 10)]
    assert [at_s for *_, at_s in shop.cloud.done] == pytest.approx([0.02, 5.0, 10.0], abs=1.1)
    assert shop.last.plan_id == "p1"


@pytest.mark.parametrize(
    ("want", "gets", "says"),
    [
        (50, 8, "wants 50, the actuator's most is 8"),
        (0, 3, "wants 0, the fleet's least_replicas is 3"),
        (5, 5, ""),
    ],
)
def test_bounds_of_the_fleet_and_of_the_entry_hold_and_what_they_cut_is_said(want: int, gets: int, says: str) -> None:
    shop = Shop(CloudEntry(pool="*", least=1, most=8))
    shop.publish(fleet(endpoints=[end("e0", least_replicas=3)], version=2))
    shop.plan(want)
    shop.run(1)
    assert [done[:2] for done in shop.cloud.done] == [("p1", gets)]
    assert says in shop.last.note


def test_endpoints_that_share_a_pool_share_its_bounds_and_without_most_replicas_nothing_is_added() -> None:
    shop = Shop()
    twins = [end("e0"), end("e1", zone="e0", url="http://127.0.0.1:2", most_replicas=None)]
    shop.publish(fleet(endpoints=twins, version=2))
    shop.plan(50)
    shop.run(1)
    assert shop.cloud.done[0][1] == 12


def test_taking_away_waits_for_the_pool_to_cool_down_and_adding_does_not() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=120.0))
    shop.plan(5)
    shop.run(10)
    shop.plan(3, "p2")
    shop.run(10)
    assert "waits until 08:02:00Z: the pool cools down" in shop.last.note
    shop.plan(9, "p3")
    shop.run(10)
    shop.plan(4, "p4")
    shop.run(200)
    assert [done[:2] for done in shop.cloud.done] == [("p1", 5), ("p3", 9), ("p4", 4)]
    assert shop.cloud.done[2][2] == pytest.approx(20 + 120, abs=1.1)


def test_what_is_taken_away_is_counted_out_first_and_serves_meanwhile() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0, drain_s=20.0, observe_s=1.0))
    shop.run(5)
    assert shop.last.ready == 2
    shop.plan(1, "p1")
    shop.run(5)
    assert (shop.last.ready, shop.last.plan_id) == (1, None)
    assert "1 wanted, waits until 08:00:25Z: what goes is counted out" in shop.last.note
    assert shop.cloud.done == []
    shop.run(20)
    assert [done[:2] for done in shop.cloud.done] == [("p1", 1)]
    assert (shop.last.ready, shop.last.plan_id) == (1, "p1")


def test_who_is_counted_out_and_wanted_after_all_counts_again() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0, drain_s=20.0, observe_s=1.0))
    shop.run(5)
    shop.plan(1, "p1")
    shop.run(10)
    shop.plan(2, "p2")
    shop.run(30)
    assert 1 not in [want for _, want, *_ in shop.cloud.done]
    assert shop.last.ready == 2


def test_a_dry_run_counts_nothing_out() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0, drain_s=20.0), mode="dry_run")
    shop.run(5)
    shop.plan(1, "p1")
    shop.run(10)
    assert shop.last.ready == 2


def test_a_pool_that_left_the_fleet_is_left_alone() -> None:
    shop = Shop(ends=2)
    shop.run(2)
    shop.publish(fleet(endpoints=shop.ends[1:], version=2))
    shop.run(1)
    seen = len(shop.cloud.ran)
    shop.plan(5)
    shop.run(30)
    assert {pool for pool, *_ in shop.cloud.ran[seen:]} == {shop.ends[1].pool}


def test_an_older_fleet_that_comes_late_changes_nothing() -> None:
    shop = Shop()
    shop.publish(fleet(endpoints=[end("e0", most_replicas=4)], version=3))
    shop.publish(fleet(endpoints=[end("e0", most_replicas=9)], version=2))
    shop.plan(50)
    shop.run(1)
    assert shop.cloud.done[0][1] == 4


# ---------------------------------------------------------------- operators


def test_an_operators_plan_goes_first_until_its_time_is_over() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0))
    shop.plan(8, "op-1", by="ann", until_s=T0 + 60)
    shop.run(5)
    shop.plan(3, "p1")
    shop.run(50)
    assert [done[:2] for done in shop.cloud.done] == [("op-1", 8)]
    assert shop.last.held_until_s == T0 + 60
    assert shop.last.note == "op-1 by ann, who holds the pool until 08:01:00Z: set to 8"
    shop.run(20)
    assert [done[:2] for done in shop.cloud.done] == [("op-1", 8), ("p1", 3)]
    assert shop.last.held_until_s is None


def test_an_operator_does_not_wait_for_the_pool_to_cool_down() -> None:
    shop = Shop()
    shop.plan(5)
    shop.run(5)
    shop.plan(3, "op-1", by="ann", until_s=T0 + 600)
    shop.run(1)
    assert [done[:2] for done in shop.cloud.done] == [("p1", 5), ("op-1", 3)]


def test_a_plan_that_is_taken_back_is_not_carried_out_and_holds_nothing() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0))
    shop.plan(8, "op-1", by="ann", until_s=T0 + 600)
    shop.run(5)
    shop.take_back()
    shop.run(1)
    assert (shop.last.held_until_s, shop.last.plan_id, shop.last.note) == (None, "op-1", "")
    shop.plan(3)
    shop.run(1)
    assert [done[:2] for done in shop.cloud.done] == [("op-1", 8), ("p1", 3)]


def test_what_somebody_else_sets_stays_until_the_next_plan_and_is_said() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0))
    shop.plan(5)
    shop.run(30)
    shop.cloud.targets[shop.pool].want = 7
    shop.run(60)
    assert len(shop.cloud.done) == 1
    assert "somebody else has set it to 7 since" in shop.last.note
    shop.plan(6, "p2")
    shop.run(10)
    assert shop.cloud.done[-1][:2] == ("p2", 6)
    assert "somebody" not in shop.last.note


# ---------------------------------------------------------------- taken over


def test_who_takes_over_does_nothing_twice() -> None:
    shop = Shop()
    shop.plan(5)
    shop.run(90)
    other = shop.taken_over()
    other.run(60)
    assert len(shop.cloud.done) == 1
    assert (other.last.plan_id, other.last.ready) == ("p1", 5)


def test_who_takes_over_goes_on_with_what_was_not_done_and_counts_on() -> None:
    shop = Shop(cloud=Cloud(stuck=True))
    shop.plan(5)
    shop.run(200)
    shop.plan(6, "p2", not_before_s=T0 + 260)
    shop.run(5)
    assert shop.last.failed == 3
    other = shop.taken_over()
    other.run(60)
    assert [done[:2] for done in shop.cloud.done] == [("p1", 5), ("p2", 6)]
    assert other.last.failed == 3


def test_an_operators_hold_outlives_her_plan_being_compacted_away() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0))
    shop.plan(8, "op-1", by="ann", until_s=T0 + 300)
    shop.run(5)
    shop.plan(3)
    shop.run(5)
    other = shop.taken_over()
    log = other.carrier.logs[topics.CAPACITY_PLAN.name][0].messages
    del log[0]  # compaction leaves the last word of a key
    other.run(200)
    assert len(shop.cloud.done) == 1
    assert other.last.held_until_s == T0 + 300
    other.run(120)
    assert [done[:2] for done in shop.cloud.done] == [("op-1", 8), ("p1", 3)]


def test_a_hold_that_was_taken_back_while_nobody_was_there_is_over() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0))
    shop.plan(8, "op-1", by="ann", until_s=T0 + 300)
    shop.run(5)
    other = shop.taken_over()
    other.take_back()
    other.plan(3)
    other.run(2)
    assert shop.cloud.done[-1][:2] == ("p1", 3)


def test_after_taking_over_the_pool_cools_down_from_the_last_word_on() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=100.0))
    shop.plan(5)
    shop.run(50)
    other = shop.taken_over()
    other.plan(3, "p2")
    other.run(60)
    assert len(shop.cloud.done) == 1
    other.run(90)
    assert shop.cloud.done[-1][:2] == ("p2", 3)


def test_where_what_was_set_ends_with_the_process_the_next_owner_sets_it_again_however_old() -> None:
    for entry, times in ((CloudEntry(pool="*"), 1), (Forgetful(pool="*"), 2)):
        shop = Shop(entry)
        shop.plan(5)
        shop.run(3000)
        shop.taken_over().run(30)
        assert [done[:2] for done in shop.cloud.done] == [("p1", 5)] * times


# ---------------------------------------------------------------- trouble


def test_a_pool_whose_actuator_fails_is_tried_ever_more_seldom_and_holds_up_no_other() -> None:
    shop = Shop(ends=2)
    sick, well = shop.ends[0].pool, shop.ends[1].pool
    shop.cloud.trouble[sick] = AWAY
    shop.plan(5)
    shop.plan(5, "q1", pool=well)
    shop.run(120)
    tries = [at_s for pool, plan_id, _, at_s in shop.cloud.ran if (pool, plan_id) == (sick, "p1")]
    gaps = [round(b - a) for a, b in pairwise(tries)]
    assert gaps[1:5] == [2, 4, 8, 16], "the first is a second, at the tick after it"
    assert ("q1", 5) in [done[:2] for done in shop.cloud.done]
    assert "p1: not carried out, tried 7 times, again at" in shop.last.note
    assert "nobody takes the connection" in shop.last.note
    assert shop.last.plan_id is None
    shop.cloud.trouble.clear()
    shop.run(70)
    assert (shop.last.plan_id, shop.last.ready) == ("p1", 5)
    assert "tried" not in shop.last.note


def test_whoever_asks_for_a_wait_gets_it_but_not_for_ever() -> None:
    for after_s, waits_s in ((30.0, 30), (86_400.0, 600)):
        shop = Shop()
        shop.cloud.trouble[shop.pool] = Trouble("later", "throttled", after_s)
        shop.plan(5)
        shop.run(1000)
        tries = [at_s for *_, plan_id, _, at_s in shop.cloud.ran if plan_id]
        assert tries[1] - tries[0] == pytest.approx(waits_s, abs=1.1)


def test_what_needs_a_human_is_tried_once_a_minute() -> None:
    shop = Shop()
    shop.cloud.trouble[shop.pool] = Trouble("stop", "no right. Grant it.")
    shop.plan(5)
    shop.run(185)
    assert len([1 for *_, plan_id, _, _ in shop.cloud.ran if plan_id]) == 4


def test_a_plan_that_is_refused_is_not_tried_again_and_the_next_is() -> None:
    shop = Shop()
    before = signals.PLANS.labels("cloud", "refused")._value.get()
    shop.cloud.trouble[shop.pool] = Trouble("refused", "422: too many")
    shop.plan(5)
    shop.run(100)
    assert len(shop.cloud.done) == 1
    assert "p1: refused: 422: too many" in shop.last.note
    assert signals.PLANS.labels("cloud", "refused")._value.get() == before + 1
    shop.cloud.trouble.clear()
    shop.plan(6, "p2")
    shop.run(70)
    assert shop.last.plan_id == "p2"


def test_a_new_plan_does_not_wait_for_the_last_ones_backoff_and_the_same_one_again_does() -> None:
    shop = Shop()
    shop.cloud.trouble[shop.pool] = Trouble("stop", "no")
    shop.plan(5)
    shop.run(10)
    shop.plan(5)
    shop.run(10)
    assert len(shop.cloud.done) == 1
    shop.plan(6, "p2")
    shop.run(1)
    assert len(shop.cloud.done) == 2


def test_who_steps_aside_is_asked_again_and_takes_it_when_the_way_is_free() -> None:
    shop = Shop(cloud=Cloud(receipt=Receipt(5, taken=False, note="the HPA h scales it", again_s=60.0)))
    shop.plan(5)
    shop.run(30)
    assert "p1: not carried out, tried once, again at" in shop.last.note
    assert "the HPA h scales it" in shop.last.note
    assert shop.last.plan_id is None
    shop.cloud.receipt = None
    shop.run(60)
    assert shop.last.plan_id == "p1"


def test_while_a_pool_cannot_be_seen_its_last_sight_is_said_with_its_time() -> None:
    shop = Shop()
    shop.run(20)
    shop.cloud.trouble[shop.pool] = AWAY
    shop.run(60)
    assert (shop.last.ready, shop.last.at_s) == (2, T0 + 20)
    assert "it cannot be looked at, tried" in shop.last.note


# ---------------------------------------------------------------- dry run, and blind


def test_a_dry_run_is_said_and_gives_no_receipt() -> None:
    rehearsed = Receipt(5, taken=False, note="dry run: would set it from 2 to 5")
    shop = Shop(cloud=Cloud(receipt=rehearsed), mode="dry_run")
    shop.plan(5)
    shop.run(60)
    assert len(shop.cloud.done) == 1
    assert shop.last.note == "dry run; p1: dry run: would set it from 2 to 5"
    assert shop.last.plan_id is None


def test_a_target_that_cannot_be_seen_is_said_to_be_as_the_fleet_declares() -> None:
    shop = Shop()
    shop.cloud.targets[shop.pool] = Target(blind=True)
    shop.run(1)
    assert shop.said == [], "there is nothing to say of it"
    shop.plan(5)
    shop.run(30)
    assert (shop.last.ready, shop.last.plan_id) == (2, "p1")
    assert shop.last.note == "p1: set to 5; nothing of it can be seen: ready is what the fleet declares"


# ---------------------------------------------------------------- measured


def test_cold_start_is_measured_from_launch_to_ready_once_a_few_were_seen() -> None:
    shop = Shop(CloudEntry(pool="*", observe_s=1.0))
    shop.plan(4)
    shop.run(30)
    assert shop.last.cold_start_s is None
    shop.plan(6, "p2")
    shop.run(30)
    assert shop.last.cold_start_s == pytest.approx(20.0, abs=1.1)
    assert (shop.last.ready, shop.last.starting, shop.last.failed) == (6, 0, 0)


def test_a_launch_that_takes_too_long_has_failed_and_is_said() -> None:
    shop = Shop(cloud=Cloud(stuck=True))
    shop.plan(5)
    shop.run(175)
    assert shop.last.failed == 0
    shop.run(10)
    assert shop.last.failed == 3, "three cold starts of the fleet's 60 s are over"
    shop = Shop(CloudEntry(pool="*", launch_s=30.0), cloud=Cloud(stuck=True))
    shop.plan(5)
    shop.run(35)
    assert shop.last.failed == 3


def test_a_launch_that_is_called_off_has_not_failed() -> None:
    shop = Shop(CloudEntry(pool="*", cool_down_s=0.0), cloud=Cloud(stuck=True))
    shop.plan(5)
    shop.run(10)
    shop.plan(2, "p2")
    shop.run(300)
    assert shop.last.failed == 0


# ---------------------------------------------------------------- said


def test_news_is_said_at_once_and_what_has_not_changed_every_ten_seconds() -> None:
    shop = Shop()
    shop.run(100)
    assert len(shop.said) == pytest.approx(10, abs=1)
    assert {(said.ready, said.note) for said in shop.said} == {(2, "")}


def test_a_plan_under_another_key_is_a_dead_letter_since_compaction_would_mix_them_up() -> None:
    shop = Shop()
    plan = shop.plan(5)
    messages = shop.carrier.logs[topics.CAPACITY_PLAN.name][0].messages
    value = messages.pop().value
    shop.carrier.send(topics.CAPACITY_PLAN, "another", value)
    shop.run(5)
    (letter,) = shop.carrier.said(topics.DEAD_LETTERS)
    told = dict(letter.headers)
    assert told[topics.DEAD_FIELD] == b"key"
    assert plan.pool.encode() in told[topics.DEAD_REASON]
    assert shop.cloud.done == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (b'"until_s":5', b"is not after made_at_s"),
        (b'"by":"ann"', b"says how long it holds"),
        (b'"want":-1', b">= 0"),
    ],
)
def test_a_plan_that_contradicts_itself_is_a_dead_letter(more: bytes, reason: bytes) -> None:
    shop = Shop()
    good = b'{"pool":"p","plan_id":"x","made_at_s":9,"want":1,"have":1,"not_before_s":9,"reason":""}'
    bad = good[:-1] + b"," + more + b"}" if more[:6] != b'"want"' else good.replace(b'"want":1', more)
    shop.carrier.send(topics.CAPACITY_PLAN, "p", bad)
    shop.run(1)
    (letter,) = shop.carrier.said(topics.DEAD_LETTERS)
    assert reason in dict(letter.headers)[topics.DEAD_REASON]


def test_the_pools_of_a_worker_that_lost_them_are_gauged_no_more() -> None:
    shop = Shop()
    shop.run(5)
    sample = {"pool": shop.pool, "state": "ready"}
    assert signals.REGISTRY.get_sample_value("tradewind_pool_replicas", sample) == 2
    (reader,) = shop.carrier._readers
    reader.runner.release(0)
    assert signals.REGISTRY.get_sample_value("tradewind_pool_replicas", sample) is None


def test_what_was_said_by_hand_is_read_as_an_owners_word() -> None:
    shop = Shop()
    word = Capacity(pool=shop.pool, at_s=T0 - 5, ready=2, plan_id="p1", cold_start_s=33.0)
    shop.carrier.send(topics.CAPACITY, word.pool, b'{"pool":"%s","at_s":%d,"ready":2,"plan_id":"p1","cold_start_s":33}'
                      % (word.pool.encode(), word.at_s))  # fmt: skip
    shop.plan(5, "p1")
    shop.run(5)
    assert shop.cloud.done == []
    assert (shop.last.plan_id, shop.last.cold_start_s) == ("p1", 33.0)
    assert shop.last.note == "p1: carried out before, 5 wanted"
