"""The error tree, cut by what the reader of an error can do.

TradewindError
├── Retry        try again later; nothing was lost           (broker away, solver busy)
├── Refused      skip it, count it, keep it for inspection   (field, value, reason)
│   ├── RecordRefused    a record that breaks the contract
│   └── TableRefused     a routing table a gateway must not follow
└── Stop         do not start, or end; a human has to act    (what, remedy)
    ├── BadSetting       a configuration value               (where, field, value, remedy)
    ├── TopicDiffers     an existing topic is not as declared
    ├── Missing          something needed is not there: Java, network, disk, port
    └── Denied           Kafka does not let us in, or not there  (rights that lack, what grants them)
"""

from __future__ import annotations

import re
from typing import Final

_SHOWN = 120
_SECRETS = ("password", "passphrase", "secret", "token", "api_key")
_HIDDEN = "(not shown)"
_USER: Final = re.compile(r"//[^/\s@'\"]+@")


def shown(value: object) -> str:
    """`value` as one short line, fit for a log or an error; long values are cut and say so, users in URLs are not said.

    >>> shown("http://root:secret@h:1/x")
    "'http://***@h:1/x'"
    """
    text = without_user(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def without_user(text: str) -> str:
    """`text` without the users and passwords in its URLs."""
    return _USER.sub("//***@", text)


def is_secret(field: str) -> bool:
    """Whether a field of this name would hold a secret itself.

    >>> [is_secret(field) for field in ("sasl_password_file", "kafka.sasl_password", "token_env", "api_keys")]
    [False, True, False, False]
    """
    return field.lower().rpartition(".")[2].endswith(_SECRETS)


class TradewindError(Exception):
    """Root of all errors that Tradewind raises on purpose."""


class Retry(TradewindError):
    """It may work in a moment; nothing was lost."""


class Refused(TradewindError):
    """One input breaks a rule. Says which `field`, with which `value`, and the `reason`."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {reason} (got {shown(value)})")
        self.field, self.value, self.reason = field, value, reason


class RecordRefused(Refused):
    """A record that breaks the contract; it goes to the dead letters with its place."""


class TableRefused(Refused):
    """A routing table that must not be followed; the last good one stays in force."""


class Stop(TradewindError):
    """A human has to act. `what` is wrong, and the `remedy`."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what, self.remedy = what, remedy


class BadSetting(Stop):
    """A configuration value cannot be used: where it came from, its name, the value, what would be right.

    What may be a secret put in the wrong place is not repeated.
    """

    def __init__(self, where: str, field: str, value: object, remedy: str) -> None:
        value = _HIDDEN if value is not None and is_secret(field) else value
        super().__init__(f"{where}: {field} = {shown(value)} cannot be used", remedy)
        self.where, self.field, self.value = where, field, value


class TopicDiffers(Stop):
    """An existing topic is not as the contract declares it."""


class Missing(Stop):
    """Something that is needed is not there: Java, the network, disk space, a port."""


class Denied(Stop):
    """Kafka does not let us in, or lacks a right for us: who, what, and how it is granted."""
