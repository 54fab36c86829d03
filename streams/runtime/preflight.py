"""What the broker says of us before we begin: whether it lets us in, and which rights we have there.

Asked in the words of the protocol (authorized operations of KIP-430), because a client learns of a missing right only
by failing, and aiokafka hides why it did: a name that is refused is a broker it could not reach, a topic one may not
see does not exist. A broker too old to say is taken to allow what is asked for; it says so when it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest

from streams.contract.errors import Denied, Stop
from streams.contract.rights import ROLE, Operation, Right, grants
from streams.contract.topics import TOPICS
from streams.runtime import asked, clock
from streams.runtime.access import Access, client_options, resolved

if TYPE_CHECKING:
    from streams.settings import Settings

_REACH_S: Final = 5.0
_BITS: Final[dict[Operation, int]] = {
    "READ": 3, "WRITE": 4, "CREATE": 5, "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10,
}  # fmt: skip
"""Each operation's bit in what the broker answers."""
_REFUSED: Final = (
    AuthenticationFailedError, IllegalSaslStateError, SaslAuthenticationFailed, UnsupportedSaslMechanismError,
)  # fmt: skip


async def require(access: Access | Settings, prefix: str, role: str, without: Collection[Operation] = ()) -> None:
    """Comes back when `role` has its rights on topics that begin with `prefix`, `without` those that matter not now.

    Raises Denied with all that lack and the lines that grant them, or when Kafka does not let us in; KafkaError,
    OSError or TimeoutError when it is away.
    """
    needed = [right for right in ROLE[role].rights(prefix) if right.operation not in without]
    if lack := await lacking(access, needed):
        raise denied(access, lack, role)


def denied(access: Access | Settings | str, lack: Collection[Right], role: str | None = None) -> Denied:
    """One sentence: who may not do what, as whom, and what grants it."""
    access = resolved(access)
    who = f"{access.principal}, in the role {role}," if role else access.principal
    lines = grants(access.principal, lack, access.bootstrap_servers)
    return Denied(f"On Kafka {who} may not {', nor '.join(map(_says, lack))}", f"Grant it: {' && '.join(lines)}")


def words(access: Access | Settings | str, error: BaseException, operation: Operation, topic: str = "") -> str:
    """`error` as it is; or, where it is a right that lacks, which one and what grants it. `topic` by its full name."""
    if isinstance(error, GroupAuthorizationFailedError):
        return str(denied(access, [Right("group", str(next(iter(error.args), "")), "READ")]))
    if not isinstance(error, TopicAuthorizationFailedError):
        return repr(error)
    named = next(iter(error.args), topic)
    names = sorted(named) if isinstance(named, set | frozenset | list | tuple) else [str(named)]
    return str(denied(access, [Right("topic", name, operation) for name in names]))


async def because(access: Access | Settings | str, rights: Collection[Right] = ()) -> str | None:
    """Why a client of ours gets nowhere, where names, certificates or `rights` are why; None: other reasons."""
    try:
        lack = await lacking(access, rights)
    except Stop as error:
        return str(error)
    except (KafkaError, OSError, TimeoutError):
        return None
    return str(denied(access, lack)) if lack else None


class Seldom:
    """Lets the same words through once in `every_s`; a client that lacks a right would say so five times a second."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._said_at_s: dict[str, float] = {}

    def passes(self, said: str) -> bool:
        """Whether it is time to say it (again)."""
        now_s = clock.monotonic_s()
        if now_s - self._said_at_s.get(said, -self._every_s) < self._every_s:
            return False
        self._said_at_s = {word: at_s for word, at_s in self._said_at_s.items() if now_s - at_s < self._every_s}
        self._said_at_s[said] = now_s
        return True


def _says(right: Right) -> str:
    which = f"{right.resource}s {right.name}*" if right.pattern == "prefixed" else f"the {right.resource} {right.name}"
    return f"{right.operation} {which}"


async def lacking(access: Access | Settings | str, rights: Iterable[Right]) -> list[Right]:
    """Those of `rights` that the broker does not grant us; on what does not exist yet only what it can tell.

    Of a right on all topics under a prefix it is asked about each of ours.

    Raises Denied when it does not let us in at all, KafkaError, OSError or TimeoutError when it is away.
    """
    access = resolved(access)
    wanted = {right: _names(right) for right in rights}
    topics = {name for right, names in wanted.items() if right.resource == "topic" for name in names}
    groups = {name for right, names in wanted.items() if right.resource == "group" for name in names}
    async with asyncio.timeout(_REACH_S), _connected(access) as conn:
        have = {("topic", name): bits for name, bits in (await _topic_operations(conn, topics)).items()}
        have |= {("group", name): await _group_operations(access, conn, name) for name in groups}

    def granted(right: Right, name: str) -> bool:
        return _allows(have.get((right.resource, name)), right.operation)

    return [right for right, names in wanted.items() if not all(granted(right, name) for name in names)]


def _names(right: Right) -> list[str]:
    if right.pattern == "literal":
        return [right.name]
    return [right.name + topic.name for topic in TOPICS] if right.resource == "topic" else []


def _allows(bits: int | None, operation: Operation) -> bool:
    """`bits`: what is allowed; None where the broker does not say."""
    return bits is None or bits < 0 or bool(bits >> _BITS[operation] & 1)


async def _topic_operations(conn: Any, names: Collection[str]) -> dict[str, int | None]:
    if not names or not asked.knows(conn, asked.RightsOnTopics):
        return {}
    answer = await conn.send(asked.RightsOnTopics(sorted(names)))
    return {topic["name"]: asked.operations(topic) for topic in answer.to_object()["topics"]}


async def _group_operations(access: Access, conn: Any, group: str) -> int | None:
    """Only the group's coordinator knows; None while there is none."""
    if not asked.knows(conn, asked.RightsOnGroup):
        return None
    found = await conn.send(FindCoordinatorRequest(group, 0))
    if found.error_code:
        return asked.refused(found.error_code)
    if (found.host, found.port) == (conn.host, conn.port):
        return await _asked_of(conn, group)
    there = msgspec.structs.replace(access, bootstrap_servers=f"{found.host}:{found.port}")
    async with _connected(there) as coordinator:
        return await _asked_of(coordinator, group)


async def _asked_of(coordinator: Any, group: str) -> int | None:
    answer = await coordinator.send(asked.RightsOnGroup(group))
    return asked.operations(answer.to_object()["groups"][0])


@contextlib.asynccontextmanager
async def _connected(access: Access) -> AsyncIterator[Any]:
    """A connection to the first server that lets us in. Raises Denied when one does not."""
    conn = await _connect(access)
    try:
        yield conn
    finally:
        conn.close()


async def _connect(access: Access) -> Any:
    options = client_options(access)
    hosts = collect_hosts(options.pop("bootstrap_servers"))
    last: Exception = OSError("no server is named")
    for host, port, _ in hosts:
        try:
            return await create_conn(host, port, **options, request_timeout_ms=int(_REACH_S * 1000))
        except _REFUSED as error:
            raise _not_in(access, error) from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            last = error  # it hung up: it may be about to stop
        except ssl.SSLError as error:
            raise _no_tls(access, f"{host}:{port}", error) from None
        except (KafkaError, OSError, TimeoutError) as error:
            last = error
    raise last


def _not_in(access: Access, error: Exception) -> Denied:
    name, where = access.sasl_username, access.bootstrap_servers
    if isinstance(error, UnsupportedSaslMechanismError):
        return Denied(
            f"Kafka at {where} does not take sasl_mechanism {access.sasl_mechanism}",
            "Set the one its listener has; it may be that security_protocol or the port is another listener's",
        )
    if isinstance(error, IllegalSaslStateError):
        return Denied(
            f"Kafka at {where} does not want {access.security_protocol}", "Set security_protocol without SASL"
        )
    return Denied(
        f"Authentication failed for user {name} ({access.sasl_mechanism}) at Kafka {where}",
        f"Check sasl_username and what sasl_password_file ({access.sasl_password_file}) holds",
    )


def _no_tls(access: Access, server: str, error: ssl.SSLError) -> Denied:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Denied(
            f"The certificate of Kafka at {server} was not accepted ({error.verify_message.rstrip('.')})",
            f"Check tls_ca_file ({access.tls_ca_file or 'the CAs of this machine'}) and the name in bootstrap_servers",
        )
    return Denied(
        f"Kafka at {server} does not speak TLS with us ({error.reason or error})",
        "Check that this port is its TLS listener, and tls_cert_file where it asks for one",
    )
