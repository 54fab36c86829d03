"""`tradewind up`: everything a tradewind.yaml needs, in one terminal, until Ctrl-C.

file ─► settings ─► broker ─► topics ─► fleet ─┬─ worker streams, worker router ─┐
                                               └─ a gateway per origin ──────────┴─► ready ─► watch the file
"""
