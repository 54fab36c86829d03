"""An operator's hands on what runs: look at tables, states and dead letters; drain endpoints; find what is wrong.

Everything is asked of Kafka and of processes' own doors, each question with a deadline; nothing here keeps state.
"""
