"""Send one observation of one endpoint: `python examples/produce_metrics.py [HOST:PORT [PREFIX]]`. Needs aiokafka only.

aiokafka hashes keys with murmur2, as Tradewind's partitions expect. With librdkafka (confluent-kafka, kcat) set
`partitioner=murmur2_random`.
"""

import asyncio
import json
import sys
import time

from aiokafka import AIOKafkaProducer


async def main(bootstrap: str = "127.0.0.1:19092", prefix: str = "tradewind") -> None:
    """One record: 12 requests of the last second, one of which failed."""
    # on a secured Kafka also: security_protocol="SASL_SSL", ssl_context=ssl.create_default_context(cafile="ca.pem"),
    # sasl_mechanism="SCRAM-SHA-512", sasl_plain_username=..., sasl_plain_password=...
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await producer.start()
    try:
        record = {
            "endpoint": "eu-west-a",
            "service": "llama-3-8b",
            "class": "interactive",
            "observer": "my-collector",
            "boot": int(time.time()),  # with seq it tells repeats from news: a new boot each start
            "seq": 1,  # and one more with each record
            "at_s": time.time(),
            "interval_s": 1.0,
            "requests": 12,
            "errors": {"http_5xx": 1},
            "latency_ms": [41.2, 39.8, 44.0, 40.1, 120.7, 38.9, 42.2, 43.3, 40.0, 39.1, 41.0],
        }
        sent = await producer.send_and_wait(
            f"{prefix}.endpoint-metrics.v1",
            json.dumps(record).encode(),
            key=record["endpoint"].encode(),
            headers=[("content-type", b"application/json")],
        )
        print(f"sent to {sent.topic}, partition {sent.partition}, offset {sent.offset}")
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
