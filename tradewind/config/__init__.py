"""`tradewind.yaml`, read whole: fleet and the other sections, with lines, sources and all problems at once.

text ─► tree with lines ─┬─ fleet sections   router_sync.fleet
                         ├─ settings:        streams.settings.Settings
                         ├─ gateway:         router_sync.gateway.GatewayConfig, without what is one gateway's own
                         └─ actuators:       router_sync.actuators.section.Actuators
"""
