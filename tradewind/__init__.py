"""The roof: imports all, is imported by none. The map is `tradewind.flow`."""

__version__ = "0.1.0"
