"""A small world to be judged in: pretend endpoints, callers and gateways around the house's own stages.

    scenario ─► demand · prices · carbon · faults · losses         what happens, whatever is decided
                          │
        ┌─────────────────▼─────────────────┐  metrics, arrivals, prices, notices, capacity, jobs
        │ gateways ─► endpoints ─► ledger   │ ─────────────────────────────► brain: the stages of all rooms on the
        └─────────────────▲─────────────────┘ ◄─────────────────────────────        memory carrier, or a rival
                          │                     signed tables, plans, releases
                       timeline: what moved when, and why

Everything that decides is what decides on Kafka: the same stages, records as bytes, tables signed and verified, the
gateways' own library for each pick. What stands around it is pretended, time is virtual, equal seeds give equal bytes.

Seams for other callers: `Setup` (recorded demand, prices, carbon, lending), `Brain` and `rivals.Rule` (who decides).
"""

from tradewind.world.brain import Brain, House, Said, View
from tradewind.world.replay import Options, replay
from tradewind.world.setup import Setup
from tradewind.world.summary import Summary, summary
from tradewind.world.world import World

__all__ = ["Brain", "House", "Options", "Said", "Setup", "Summary", "View", "World", "replay", "summary"]
