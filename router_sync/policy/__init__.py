"""Law and preference as reviewed YAML: which requests may go to which endpoints, and what is wished for.

    policies/*.yaml ─► file ─► Policy (records) ─┬─ law, preference    a fleet at once, as arrays: the router
                                                 └─ rules              one pair at a time: gateways, guards, reasons

First law, then preference: what is forbidden has no price. Law fails closed; a fact that nobody has declared never
helps (`rules`). `law` and `preference` need numpy; the rest needs the contract alone.
"""
