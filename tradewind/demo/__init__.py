"""The loop, live: a real Kafka, workers, gateways, a pretend fleet of real HTTP endpoints, recorded arrivals."""
