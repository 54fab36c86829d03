"""A webhook: the plan is posted to an address of yours, signed as Standard Webhooks are, and you carry it out.

    - pool: "lab/*"
      kind: webhook
      url: https://capacity.example.com/tradewind
      secret: {file: /run/secrets/capacity-hook}          # whsec_… as Standard Webhooks write it
      observe_url: https://capacity.example.com/replicas  # optional: answers {"ready": 3, "starting": 1, "want": 4}

    POST  webhook-id: PLAN_ID   webhook-timestamp: 1800000000   webhook-signature: v1,BASE64   Idempotency-Key: PLAN_ID
          {"type": "tradewind.capacity-plan.v1", "timestamp": "2027-…Z", "data": {"pool": …, "want": 4, …}}

2xx: taken. 429 and 5xx: again later, as Retry-After says, under the same id: carry each id out once. 401, 403, 404, 410
and redirects need a human; other answers refuse the plan. Only https, and http on this machine, unless `allow_http`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec

from router_sync.actuators.around import Around
from router_sync.actuators.dry_run import would
from router_sync.actuators.entry import Entry
from router_sync.actuators.protocol import Later, Receipt, Replicas
from router_sync.gateway.secret import Reference, read
from streams.contract.errors import BadSetting, Refused, Stop
from streams.contract.records import CapacityPlan, Count, Url

PREFIX: Final = "whsec_"
_LONGEST: Final = 64 << 10
_LEAST_KEY, _MOST_KEY = 24, 64
"""Bytes of a secret, as Standard Webhooks have it."""
_HUMAN: Final = frozenset({401, 403, 404, 405, 410})


class WebhookEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Posts plans to an address of yours."""

    kind: Literal["webhook"] = "webhook"
    url: Url
    secret: Reference
    """Signs what is posted: whsec_ and base64."""
    next_secret: Reference | None = None
    """Signs too, while secrets change."""
    observe_url: Url | None = None
    """Asked with ?pool=… for what there is; None: nothing is seen, and ready is what the fleet declares."""
    allow_http: bool = False
    """Whether plans may be posted in plain text to other machines: who is on the way can read them, not forge them."""

    def __post_init__(self) -> None:
        """Refuse addresses that are read on the way."""
        for field in ("url", "observe_url"):
            url = getattr(self, field)
            if url is not None and not (self.allow_http or _sheltered(url)):
                raise ValueError(f"{field} has to be https, or on this machine: or set allow_http")
            if url is not None and "@" in urlsplit(url).netloc:
                raise ValueError(f"{field} must not have a user in it: what is sent is signed")


def _sheltered(url: str) -> bool:
    """
    >>> [_sheltered(url) for url in ("https://a.example", "http://127.0.0.1:1/x", "http://[::1]/", "http://10.0.0.1/")]
    [True, True, True, False]
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------- pure: what is sent, and what the answer means


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What `observe_url` answers; more fields are ignored."""

    ready: Count
    starting: Count = 0
    want: Count | None = None
    failed: Count = 0


_seen: Final = msgspec.json.Decoder(Seen)


def body_of(plan: CapacityPlan, now_s: float) -> bytes:
    """What is posted of `plan`."""
    data = {
        "pool": plan.pool, "plan_id": plan.plan_id, "want": plan.want, "have": plan.have, "reason": plan.reason,
        "made_at_s": plan.made_at_s, "not_before_s": plan.not_before_s,
    }  # fmt: skip
    stamp = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": "tradewind.capacity-plan.v1", "timestamp": stamp, "data": data})


def headers_of(plan_id: str, body: bytes, keys: Sequence[bytes], now_s: float) -> dict[str, str]:
    """The headers that go with `body`, signed with each of `keys`."""
    stamp = str(int(now_s))
    signed = f"{plan_id}.{stamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": plan_id,
        "User-Agent": "tradewind",
        "webhook-id": plan_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def key_of(secret: str, field: str) -> bytes:
    """The key in a secret: whsec_ and base64. Raises BadSetting without the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not (secret.startswith(PREFIX) and _LEAST_KEY <= len(key) <= _MOST_KEY):
        remedy = f"Write {PREFIX} and the base64 of {_LEAST_KEY} to {_MOST_KEY} random bytes."
        raise BadSetting("actuators", field, "***", remedy)
    return key


def check(status: int, headers: Mapping[str, str], said: bytes, now_s: float) -> None:
    """Nothing for 2xx. Raises Later, Refused or Stop for any other answer."""
    why = f"the webhook answers {status}: {said[:200].decode('utf-8', 'replace')}".rstrip(": ")
    if 200 <= status < 300:
        return
    if status == 429 or status >= 500:
        raise Later(why, _seconds(headers.get("Retry-After"), now_s))
    if status in _HUMAN or 300 <= status < 400:
        raise Stop(why, "Correct url or secret; redirects are not followed")
    raise Refused("plan", status, why)


def _seconds(said: str | None, now_s: float) -> float | None:
    """Of Retry-After: seconds, or a date.

    >>> _seconds("120", 0), _seconds("Thu, 01 Jan 1970 00:01:00 GMT", 0), _seconds("soon", 0)
    (120.0, 60.0, None)
    """
    if said is None:
        return None
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now_s)
    except ValueError:
        return None


# ---------------------------------------------------------------- what posts


class Webhook:
    """The actuator."""

    def __init__(
        self, entry: WebhookEntry, acts: bool, http: aiohttp.ClientSession, keys: Sequence[bytes], around: Around
    ) -> None:
        self._entry, self._acts, self._http, self._keys, self._now_s = entry, acts, http, keys, around.now_s

    async def observe(self, pool: str) -> Replicas | None:
        if self._entry.observe_url is None:
            return None
        signed = headers_of(f"observe/{pool}", b"", self._keys, self._now_s())
        del signed["Idempotency-Key"], signed["Content-Type"]
        said = await self._asked("GET", self._entry.observe_url, params={"pool": pool}, headers=signed)
        try:
            seen = _seen.decode(said)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Stop(f"observe_url does not say replicas ({error})", 'Let it answer {"ready": 3}') from None
        return Replicas(seen.ready, seen.starting, seen.want, seen.failed)

    async def apply(self, plan: CapacityPlan) -> Receipt:
        if not self._acts:
            return would(plan.want, f"post to {urlsplit(self._entry.url).hostname} that it be")
        now_s = self._now_s()
        body = body_of(plan, now_s)
        await self._asked("POST", self._entry.url, data=body, headers=headers_of(plan.plan_id, body, self._keys, now_s))
        return Receipt(plan.want, note=f"the webhook has taken {plan.want}")

    async def _asked(self, method: str, url: str, **how: Any) -> bytes:
        """The body of a 2xx answer. Raises Later, Refused or Stop."""
        try:
            async with self._http.request(method, url, allow_redirects=False, **how) as answer:
                said = await _whole(answer)
                check(answer.status, answer.headers, said, self._now_s())
                return said
        except aiohttp.ClientError as error:
            raise Later(f"the webhook cannot be reached ({type(error).__name__})") from None


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body, cut where it is longer than anything we asked for."""
    said = b""
    while len(said) < _LONGEST and (piece := await answer.content.read(_LONGEST - len(said))):
        said += piece
    return said


@contextlib.asynccontextmanager
async def opened(entry: WebhookEntry, acts: bool, around: Around) -> AsyncIterator[Webhook]:
    """Raises BadSetting when a secret cannot be read."""
    said = {"secret": entry.secret, "next_secret": entry.next_secret}
    keys = [key_of(read(one, around.environ, name, "actuators").reveal(), name) for name, one in said.items() if one]
    timeout = aiohttp.ClientTimeout(total=entry.deadline_s)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Webhook(entry, acts, http, keys, around)
