"""Models of demand: of one series (`last_value`, `day_ahead`), and of many at once (`many` and what it is made of)."""
