"""Who a request is from, once that is known."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.contract.records import Name


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a key or a token. No classes: the service's default class, and no other."""

    tenant: Name
    classes: tuple[Name, ...] = ()


ANONYMOUS: Final = Caller(tenant="anonymous")
