"""Carriers: the same stages run on Faust and Kafka (`kafka`), and in memory with a virtual clock (`memory`)."""
