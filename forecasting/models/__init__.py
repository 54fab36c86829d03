"""Models of demand: of one series (`last_value`, `prophet`), and of many at once (`many` and what it is made of)."""
