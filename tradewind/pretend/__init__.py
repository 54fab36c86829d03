"""A pretend fleet: real HTTP servers that speak the OpenAI API and vLLM's metrics, and break on command.

`python -m tradewind.pretend --name eu-west-a --port 0` runs one endpoint as a process of its own.
"""

from tradewind.pretend.endpoint import Endpoint
from tradewind.pretend.faults import FAULT_KINDS, FaultOrder
from tradewind.pretend.settings import EndpointSettings

__all__ = ["FAULT_KINDS", "Endpoint", "EndpointSettings", "FaultOrder"]
