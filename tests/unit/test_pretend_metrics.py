"""vLLM's metrics as Prometheus text."""

from tradewind.pretend.metrics import Counts, Histogram, render


def test_buckets_are_cumulative_with_their_bound_included() -> None:
    histogram = Histogram((0.1, 0.5))
    for value in (0.1, 0.3, 0.5, 2.0):
        histogram.observe(value)
    assert list(histogram.lines("h", 'a="b"')) == [
        'h_bucket{a="b",le="0.1"} 1',
        'h_bucket{a="b",le="0.5"} 3',
        'h_bucket{a="b",le="+Inf"} 4',
        'h_sum{a="b"} 2.900000',
        'h_count{a="b"} 4',
    ]


def test_the_names_are_vllms_and_labels_are_escaped() -> None:
    text = render(Counts(), 'm"1', running=3, waiting=2, kv_cache_usage=0.25)
    labels = 'model_name="m\\"1",engine="0"'
    for line in (
        f"vllm:num_requests_running{{{labels}}} 3",
        f"vllm:num_requests_waiting{{{labels}}} 2",
        f"vllm:kv_cache_usage_perc{{{labels}}} 0.25",
        f"vllm:prompt_tokens_total{{{labels}}} 0",
        f"vllm:generation_tokens_total{{{labels}}} 0",
        f'vllm:request_success_total{{{labels},finished_reason="stop"}} 0',
        f"vllm:e2e_request_latency_seconds_count{{{labels}}} 0",
        f'vllm:time_to_first_token_seconds_bucket{{{labels},le="+Inf"}} 0',
    ):
        assert line in text.splitlines()
    assert text.endswith("\n")
    assert text.count("# TYPE") == len({line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")})
