"""The floor: what crosses topics. Needs msgspec and the standard library, nothing else.

`records` says what is said, `topics` where and how long it is kept, `errors` what can go wrong, `keys` which
partition a key lies on, `schema` writes it all down for others.
"""
