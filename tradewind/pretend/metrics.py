"""vLLM's metrics in Prometheus text, counted by hand: a few numbers, rendered only when asked."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_BOUNDS_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
FINISHED_REASONS = ("stop", "length", "abort")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts per bucket; `bounds_s` are upper bounds, included, as Prometheus has them."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, value_s: float) -> None:
        self._counts[bisect_left(self._bounds_s, value_s)] += 1
        self._sum_s += value_s

    def lines(self, name: str, labels: str) -> Iterator[str]:
        bounds = (*(f"{bound:g}" for bound in self._bounds_s), "+Inf")
        for bound, count in zip(bounds, accumulate(self._counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {self._sum_s:.6f}"
        yield f"{name}_count{{{labels}}} {sum(self._counts)}"


class Counts:
    """What one endpoint counted since it started."""

    def __init__(self) -> None:
        self.e2e = Histogram(E2E_BOUNDS_S)
        self.ttft = Histogram(TTFT_BOUNDS_S)
        self.queued = Histogram(E2E_BOUNDS_S)
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)


def render(counts: Counts, model: str, *, running: int, waiting: int, kv_cache_usage: float) -> str:
    """Prometheus text under vLLM's names; `kv_cache_usage` is 0..1 (vLLM calls it perc all the same)."""
    return "\n".join(_lines(counts, f'model_name="{_escaped(model)}",engine="0"', running, waiting, kv_cache_usage))


def _lines(counts: Counts, labels: str, running: int, waiting: int, kv_cache_usage: float) -> Iterator[str]:
    gauges: tuple[tuple[str, str, float], ...] = (
        ("num_requests_running", "Requests in execution.", running),
        ("num_requests_waiting", "Requests waiting for a slot.", waiting),
        ("kv_cache_usage_perc", "KV cache in use; 1 means all of it.", round(kv_cache_usage, 6)),
    )
    for name, help_text, value in gauges:
        yield from _head(name, help_text, "gauge")
        yield f"vllm:{name}{{{labels}}} {value}"
    for name, help_text, total in (
        ("prompt_tokens_total", "Prompt tokens read.", counts.prompt_tokens),
        ("generation_tokens_total", "Tokens generated.", counts.generation_tokens),
    ):
        yield from _head(name, help_text, "counter")
        yield f"vllm:{name}{{{labels}}} {total}"
    yield from _head("request_success_total", "Requests finished, by reason.", "counter")
    for reason, total in counts.finished.items():
        yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {total}'
    for name, help_text, histogram in (
        ("e2e_request_latency_seconds", "From arrival to the last token.", counts.e2e),
        ("time_to_first_token_seconds", "From arrival to the first token.", counts.ttft),
        ("request_queue_time_seconds", "Time spent waiting for a slot.", counts.queued),
    ):
        yield from _head(name, help_text, "histogram")
        yield from histogram.lines(f"vllm:{name}", labels)
    yield ""


def _head(name: str, help_text: str, kind: str) -> Iterator[str]:
    yield f"# HELP vllm:{name} {help_text}"
    yield f"# TYPE vllm:{name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
