"""`tradewind.yaml`, read whole: fleet, `settings:` and `gateway:`, with lines, sources and all problems at once.

text ─► tree with lines ─┬─ fleet sections   router_sync.fleet
                         ├─ settings:        streams.settings.Settings
                         └─ gateway:         router_sync.gateway.GatewayConfig, without what is one gateway's own
"""
