"""Conversations that were under way at an endpoint when that was taken back: which of them lost a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tradewind.demo.parts.run import Found, Run
from tradewind.demo.reclaim import Reclaimed
from tradewind.demo.talks import Turn


def measure(run: Run) -> Found:
    """`sessions_kept`: of the answers under way at an endpoint between its notice and its end, that can be continued,
    the share that came whole; None where there was none. `sessions`: counts, of others too."""
    threatened = [turn for turn in run.turns if any(_was_there(turn, one) for one in run.reclaimed)]
    able, unable = [t for t in threatened if t.able], [t for t in threatened if not t.able]
    return {
        "sessions_kept": round(_whole(able) / len(able), 4) if able else None,
        "sessions": {
            "threatened": len(able),
            "whole": _whole(able),
            "threatened_unable": len(unable),
            "whole_unable": _whole(unable),
            "answers": len(run.turns),
            "whole_answers": _whole(run.turns),
            "strayed": sum(_strays(run)),
        },
        "streams_left": dict(run.moves),
    }


def _was_there(turn: Turn, one: Reclaimed) -> bool:
    """Whether it began there, and was under way between notice and end."""
    there = turn.endpoint == one.endpoint
    return there and turn.began_at_s <= one.killed_at_s and turn.ended_at_s >= one.notice_at_s


def _whole(turns: Sequence[Turn]) -> int:
    return sum(turn.whole for turn in turns)


def _strays(run: Run) -> Iterator[bool]:
    """For each answer but a conversation's first: whether it began elsewhere though nobody had to leave the endpoint
    where the one before began."""
    last: dict[str, Turn] = {}
    for turn in sorted(run.turns, key=lambda turn: turn.began_at_s):
        if (before := last.get(turn.talk)) is not None:
            left = (before.began_at_s <= one.killed_at_s and turn.began_at_s >= one.notice_at_s
                    for one in run.reclaimed if one.endpoint == before.endpoint)  # fmt: skip
            yield turn.endpoint != before.endpoint and not any(left)
        last[turn.talk] = turn


def told(found: Found) -> Iterator[str]:
    """For people."""
    of = found["sessions"]
    yield (
        f"{of['whole']} of {of['threatened']} answers under way where a machine was taken back came word for word; "
        f"of {of['threatened_unable']} that cannot be continued {of['whole_unable']} did"
    )
    if found["streams_left"]:
        yield "streams there: " + ", ".join(f"{count} {what}" for what, count in found["streams_left"].items())
