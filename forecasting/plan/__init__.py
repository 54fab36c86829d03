"""How many replicas each pool should have: what is needed, what there is, what it costs. Pure; no topics here."""
