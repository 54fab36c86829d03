"""What was asked for and could not happen in a run is refused before it starts: silence would look like success."""

from __future__ import annotations

from collections.abc import Sequence

from streams.contract.errors import BadSetting
from tradewind.demo.cloud import refuse_too_slow
from tradewind.demo.options import Options
from tradewind.demo.outage import Outage, parse_outage, refuse_beyond
from tradewind.demo.parts.run import promised_s
from tradewind.demo.reclaim import USUAL_S, refuse_too_long
from tradewind.demo.scenarios import Scenario
from tradewind.load import parse_surges


def outage_of(options: Options, regions: Sequence[str]) -> Outage | None:
    """The outage asked for. Raises BadSetting for what could not happen: silence would look like success."""
    if options.broker_outage_at_s is not None:
        if options.bootstrap_servers:
            raise BadSetting(
                "flag", "--broker-outage", options.broker_outage_at_s, "Only the embedded broker is ours to kill"
            )
        refuse_beyond("--broker-outage", options.broker_outage_at_s, options.broker_outage_at_s, options.seconds)
    return parse_outage(options.outage, regions, options.seconds) if options.outage else None


def check_notice(options: Options, scenario: Scenario) -> None:
    """Raises BadSetting for notices that nobody would get."""
    if "spot" in scenario.acts:
        refuse_too_long(USUAL_S if options.spot_notice_s is None else options.spot_notice_s, options.seconds)
    elif options.spot_notice_s is not None:
        given = f"{options.spot_notice_s:g}"
        raise BadSetting("flag", "--spot-notice", given, "Only --scenario spot has machines that are taken back")


def check_cold_start(options: Options, scenario: Scenario) -> None:
    """Raises BadSetting for launches that nobody would make, or see."""
    if options.cold_start_s is None:
        return
    if "scale" not in scenario.acts:
        given = f"{options.cold_start_s:g}"
        raise BadSetting("flag", "--cold-start", given, "Only --scenario surge has pools that can scale")
    if surges := parse_surges(options.surge):
        refuse_too_slow(options.cold_start_s, promised_s(surges, options.cold_start_s), options.seconds)
