"""One thing that `tradewind doctor` looked at, and its remedy."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warn", "fail", "skipped"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, how it is, what was seen; the remedy where it is not well."""

    name: str
    state: State
    says: str
    remedy: str = ""


def ok(name: str, says: str) -> Check:
    """It is well."""
    return Check(name=name, state="ok", says=says)


def warn(name: str, says: str, remedy: str) -> Check:
    """It works now, and may not for long, or not for everything."""
    return Check(name=name, state="warn", says=says, remedy=remedy)


def fail(name: str, says: str, remedy: str) -> Check:
    """Something cannot work before it is mended."""
    return Check(name=name, state="fail", says=says, remedy=remedy)


def skipped(name: str, says: str) -> Check:
    """It could not be, or need not be, looked at."""
    return Check(name=name, state="skipped", says=says)
