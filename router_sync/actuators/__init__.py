"""Plans become replicas: what carries capacity-plan.v1 out, and says on capacity.v1 what it saw and did.

    plans, fleet ─► stage (pure) ─► errands ─► hands ─► one actuator per entry ─► Kubernetes, AWS, KEDA, a webhook
                         ▲                                     │
                         └─────────── what was seen and done ──┘

Nothing is done unless the section `actuators:` says `act`. Packages of the kinds are only needed where they are used.
"""
