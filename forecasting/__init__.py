"""Room 2, expected: demand, spot risk and capacity, one cold start ahead."""
