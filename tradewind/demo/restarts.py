"""Which processes of a run died unasked and were started again: for the screen in words, for the report in figures."""

from __future__ import annotations

import msgspec

from tradewind.processes import News


class Restart(msgspec.Struct, frozen=True):
    """A process was missed at `at_s` and back at `back_at_s` (None: not yet, or never); seconds after the load began.

    `why` it was missed, as people say it: "killed by SIGKILL".
    """

    name: str
    at_s: float
    why: str
    back_at_s: float | None = None


class Restarts:
    """Those of one run, in the order they were missed."""

    def __init__(self) -> None:
        self.all: list[Restart] = []

    def hear(self, news: News, at_s: float) -> str:
        """Take note of `news` that came at `at_s`, and say it in a sentence."""
        if not news.back:
            self.all.append(Restart(news.name, round(at_s, 1), news.why))
            return f"{news.name} is gone ({news.why}); it is started again"
        gone_since_s = at_s
        for number, one in enumerate(self.all):
            if one.name == news.name and one.back_at_s is None:
                self.all[number] = msgspec.structs.replace(one, back_at_s=round(at_s, 1))
                gone_since_s = min(gone_since_s, one.at_s)
        return f"{news.name} is back, after {at_s - gone_since_s:.1f} s"

    def missing(self, name: str) -> bool:
        """Whether `name` is missed and not back."""
        return any(one.name == name and one.back_at_s is None for one in self.all)

    def first(self, name: str) -> Restart | None:
        """The first of `name` that came back."""
        return next((one for one in self.all if one.name == name and one.back_at_s is not None), None)
