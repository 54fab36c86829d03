"""The webhook actuator: signed as Standard Webhooks are, the same id each time, and only where nobody reads along."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router_sync.actuators import webhook
from router_sync.actuators.around import Around
from router_sync.actuators.protocol import Later
from router_sync.actuators.webhook import Webhook, WebhookEntry
from router_sync.gateway.secret import Reference
from streams.contract.errors import BadSetting, Refused, Stop
from streams.contract.records import CapacityPlan
from tests.contract.stand_ins.webhook import Receiver, verified

POOL = "lab/rack/rack-7/l4/owned"
KEY, NEXT = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"
PLAN = CapacityPlan(pool=POOL, plan_id="p-1", made_at_s=9.0, want=4, have=2, not_before_s=9.0, reason="noon")


def secret(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


@contextlib.asynccontextmanager
async def actuator(
    receiver: Receiver, *, acts: bool = True, now_s: Any = time.time, **more: Any
) -> AsyncIterator[Webhook]:
    entry = WebhookEntry(pool="*", url=receiver.url, secret=Reference(env="HOOK"), **more)
    around = Around({"HOOK": secret(KEY), "NEXT": secret(NEXT)}, now_s)
    async with webhook.opened(entry, acts, around) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(KEY).serving() as served:
        yield served


# ---------------------------------------------------------------- pure


def test_a_message_is_signed_as_the_standards_own_example_is() -> None:
    key = webhook.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret")
    headers = webhook.headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [key], 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


def test_what_is_posted_says_what_it_is_when_and_the_plan() -> None:
    assert json.loads(webhook.body_of(PLAN, 1_800_000_000.0)) == {
        "type": "tradewind.capacity-plan.v1",
        "timestamp": "2027-01-15T08:00:00Z",
        "data": {"pool": POOL, "plan_id": "p-1", "want": 4, "have": 2, "reason": "noon", "made_at_s": 9.0,
                 "not_before_s": 9.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad", ["", "hello", "whsec_", "whsec_!!!", secret(b"short"), secret(b"x" * 65), "MfKQ9r8GKYqr"]
)
def test_a_secret_that_is_none_is_refused_without_being_said(bad: str) -> None:
    with pytest.raises(BadSetting) as caught:
        webhook.key_of(bad, "secret")
    assert not bad or bad not in str(caught.value).replace("whsec_ and", "")


@pytest.mark.parametrize(
    ("status", "kind", "after_s"),
    [(429, Later, 7.0), (500, Later, 7.0), (503, Later, 7.0), (401, Stop, None), (404, Stop, None), (410, Stop, None),
     (301, Stop, None), (400, Refused, None), (422, Refused, None)],
)  # fmt: skip
def test_an_answer_is_an_error_by_what_one_can_do_about_it(
    status: int, kind: type[Exception], after_s: float | None
) -> None:
    with pytest.raises(kind, match="because") as caught:
        webhook.check(status, {"Retry-After": "7"}, b"because", 0.0)
    assert getattr(caught.value, "after_s", None) == after_s


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_takes_the_plan(status: int) -> None:
    webhook.check(status, {}, b"", 0.0)


@pytest.mark.parametrize("url", ["http://10.0.0.1/x", "http://hook.example/x", "http://169.254.169.254/latest"])
def test_plain_text_to_another_machine_has_to_be_allowed(url: str) -> None:
    how: dict[str, Any] = {"pool": "*", "secret": Reference(env="HOOK")}
    with pytest.raises(ValueError, match="url has to be https"):
        WebhookEntry(url=url, **how)
    with pytest.raises(ValueError, match="observe_url has to be https"):
        WebhookEntry(url="https://hook.example", observe_url=url, **how)
    assert WebhookEntry(url=url, allow_http=True, **how).url == url


def test_an_address_with_a_password_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="must not have a user"):
        WebhookEntry(pool="*", url="https://me:word@hook.example", secret=Reference(env="HOOK"))


# ---------------------------------------------------------------- posted


async def test_what_arrives_is_signed_and_a_message_that_was_changed_is_not_taken(receiver: Receiver) -> None:
    async with actuator(receiver) as ours:
        assert (await ours.apply(PLAN)).taken
    [(headers, body)] = receiver.got
    assert verified(headers, body, (KEY,), time.time())
    assert not verified(headers, body.replace(b'"want":4', b'"want":9'), (KEY,), time.time())
    assert not verified(headers, body, (NEXT,), time.time())
    assert not verified(headers, body, (KEY,), time.time() + 301)


async def test_an_attempt_that_failed_is_made_again_under_the_same_id_and_carried_out_once(receiver: Receiver) -> None:
    receiver.answers = [(503, {"Retry-After": "1"}, b"busy")]
    async with actuator(receiver) as ours:
        with pytest.raises(Later):
            await ours.apply(PLAN)
        await ours.apply(PLAN)
        await ours.apply(PLAN)
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {"p-1"}
    assert {headers["idempotency-key"] for headers, _ in receiver.got} == {"p-1"}
    assert receiver.carried_out == ["p-1"]


async def test_while_secrets_change_both_sign(receiver: Receiver) -> None:
    for keys in ((KEY,), (NEXT,)):
        receiver.keys = keys
        async with actuator(receiver, next_secret=Reference(env="NEXT")) as ours:
            assert (await ours.apply(PLAN)).taken


async def test_a_clock_that_is_wrong_is_refused_as_a_replay_would_be(receiver: Receiver) -> None:
    async with actuator(receiver, now_s=lambda: time.time() - 3600) as ours:
        with pytest.raises(Stop, match="401"):
            await ours.apply(PLAN)


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": f"{receiver.url}/elsewhere"}, b"")]
    async with actuator(receiver) as ours:
        with pytest.raises(Stop, match="redirects are not followed"):
            await ours.apply(PLAN)
    assert len(receiver.got) == 1


async def test_in_a_dry_run_nothing_is_posted_and_the_address_is_said_without_what_follows(receiver: Receiver) -> None:
    receiver.url += "/hook?token=word"
    async with actuator(receiver, acts=False) as ours:
        receipt = await ours.apply(PLAN)
    assert receipt.note == "dry run: would post to 127.0.0.1 that it be 4"
    assert receiver.got == []


async def test_what_is_there_is_asked_for_where_it_is_said_to_be_and_signed_too(receiver: Receiver) -> None:
    async with actuator(receiver) as ours:
        assert await ours.observe(POOL) is None
    async with actuator(receiver, observe_url=receiver.url) as ours:
        assert (await ours.observe(POOL) or ())[:3] == (2, 0, 2)
        for said in (b"[]", b'{"ready": -1}', b"<html>", b'{"ready": 3}' + b" " * 70_000 + b"x"):
            receiver.answers = [(200, {}, said)]
            if said[-1:] == b"x":
                assert (await ours.observe(POOL) or ())[0] == 3, "what is too long is cut"
                continue
            with pytest.raises(Stop, match="does not say replicas"):
                await ours.observe(POOL)


async def test_a_secret_that_is_not_there_is_found_at_the_start() -> None:
    entry = WebhookEntry(pool="*", url="https://hook.example", secret=Reference(env="HOOK"))
    with pytest.raises(BadSetting, match=r"actuators: secret.env = 'HOOK'"):
        async with webhook.opened(entry, True, Around({})):
            pass
