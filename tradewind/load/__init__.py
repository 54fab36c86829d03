"""The load generator: recorded arrivals played through gateways, open loop, and what became of each request."""

from tradewind.load.drive import Counters, Outcome, Shot, Target, drive, plan
from tradewind.load.sender import HttpSender
from tradewind.load.summary import Phases, Summary, phases, quantile_ms, summarise
from tradewind.load.surge import Surge, parse_surges
from tradewind.load.trace import SAMPLE, Arrivals, TraceError, load

__all__ = [
    "SAMPLE",
    "Arrivals",
    "Counters",
    "HttpSender",
    "Outcome",
    "Phases",
    "Shot",
    "Summary",
    "Surge",
    "Target",
    "TraceError",
    "drive",
    "load",
    "parse_surges",
    "phases",
    "plan",
    "quantile_ms",
    "summarise",
]
