"""What is read outside and said on topics. A collector is two halves: fetch (the network) and parse (pure)."""
