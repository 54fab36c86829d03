"""Room 3, decided and said: law, preference and shares become a signed, numbered table that gateways follow."""
