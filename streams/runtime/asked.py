"""Two questions of Kafka's protocol that aiokafka does not ask: which operations we may do on a topic, on a group."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

_UTF8 = String("utf-8")
_NOTHING = 0
_DENIED = (TopicAuthorizationFailedError.errno, GroupAuthorizationFailedError.errno)


class _TopicsAnswer(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _UTF8), ("port", Int32), ("rack", _UTF8))),
        ("cluster_id", _UTF8),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", _UTF8),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _TopicsQuestion(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _TopicsAnswer
    SCHEMA = Schema(
        ("topics", Array(_UTF8)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class RightsOnTopics(Request[_TopicsQuestion]):  # type: ignore[misc]
    """What we may do on each of `topics`."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicsQuestion]) -> _TopicsQuestion:
        """The message."""
        return request_struct_class(self._topics, False, False, True)


class _GroupAnswer(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _UTF8),
                ("state", _UTF8),
                ("protocol_type", _UTF8),
                ("protocol", _UTF8),
                (
                    "members",
                    Array(
                        ("member_id", _UTF8),
                        ("client_id", _UTF8),
                        ("client_host", _UTF8),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _GroupQuestion(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupAnswer
    SCHEMA = Schema(("groups", Array(_UTF8)), ("include_authorized_operations", Boolean))


class RightsOnGroup(Request[_GroupQuestion]):  # type: ignore[misc]
    """What we may do with `group`; asked of its coordinator."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupQuestion]) -> _GroupQuestion:
        """The message."""
        return request_struct_class([self._group], True)


def knows(conn: Any, question: type[RightsOnTopics] | type[RightsOnGroup]) -> bool:
    """Whether the broker at the other end of `conn` is new enough (Kafka 2.3) to be asked."""
    least, most = conn._versions.get(question.API_KEY, (0, -1))
    return bool(least <= question._CLASSES[0].API_VERSION <= most)


def operations(answered: dict[str, Any]) -> int | None:
    """Bits of what is allowed, out of one topic's or group's part of an answer; None where that is not said."""
    if answered["error_code"]:
        return refused(answered["error_code"])
    bits: int = answered["authorized_operations"]
    return bits


def refused(code: int) -> int | None:
    """What an error says of our rights: none at all, or nothing about them (None)."""
    return _NOTHING if code in _DENIED else None
