"""Load on servers: arrivals, figures, and the HTTP client on servers made up for
the test."""

import asyncio
import json
import math
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import arrivals
import load_client
import load_report
from load_report import ERROR, HUNG, OK, REFUSED, Record, Run

TEXT = list(range(100, 5100))


def take(count, seed=1, mix=arrivals.Mix()):
    source = arrivals.requests(mix, TEXT, seed)
    return [next(source) for _ in range(count)]


def test_the_same_seed_asks_the_same():
    assert take(20) == take(20)
    assert take(20) != take(20, seed=2)


def test_prompts_begin_alike_and_lengths_are_within_their_ranges():
    mix = arrivals.Mix()
    prefixes = arrivals.shared_prefixes(mix, TEXT)
    assert len(prefixes) == mix.prefixes
    assert all(256 <= len(prefix) <= 512 and prefix[0] == 2 for prefix in prefixes)
    asked = take(2000)
    own = []
    for request in asked:
        prefix = next(p for p in prefixes if request.prompt[:len(p)] == p)
        own.append(len(request.prompt) - len(prefix))
    outputs = [request.output_tokens for request in asked]
    assert (min(own), max(own)) == (16, 512)
    assert (min(outputs), max(outputs)) == (8, 128)
    # Half lie below the geometric mean.
    assert sum(length < math.sqrt(16 * 512) for length in own) == pytest.approx(1000, abs=100)


def test_arrivals_are_poisson():
    times = arrivals.poisson_times(50, 200, seed=3)
    assert times == sorted(times) and 0 < times[0] and times[-1] < 200
    assert len(times) == pytest.approx(10000, abs=400)
    waits = [b - a for a, b in zip(times, times[1:])]
    mean = sum(waits) / len(waits)
    deviation = math.sqrt(sum((w - mean) ** 2 for w in waits) / len(waits))
    assert deviation == pytest.approx(mean, rel=0.05)
    with pytest.raises(ValueError):
        arrivals.poisson_times(0, 1, 1)


def test_percentiles_are_values_of_the_list():
    values = list(range(1, 101))
    assert [load_report.percentile(values, p) for p in (50, 99, 100)] == [50, 99, 100]
    assert load_report.percentile([7], 1) == 7
    assert math.isnan(load_report.percentile([], 50))


def test_latencies_count_from_when_a_request_was_due():
    late = Record(due=1, sent=3, times=[4, 5, 7], end=7, outcome=OK,
                  prompt_tokens=10, cached_tokens=4, output_tokens=6)
    figures = load_report.summary([Run([late], 10)])
    assert figures["ttft_p99_ms"] == 3000
    assert figures["e2e_p99_ms"] == 6000
    assert figures["late_p99_ms"] == 2000
    assert (figures["gap_p50_ms"], figures["gap_p99_ms"]) == (1000, 2000)
    assert figures["cached_share"] == 0.4
    assert figures["output_tokens_per_s"] == 0.6
    assert figures["total_tokens_per_s"] == 1.6


def test_what_ends_outside_the_run_is_not_its_throughput():
    straddles = Record(due=9, sent=9, times=[9.5, 11.5], end=11.5, outcome=OK,
                       prompt_tokens=5, output_tokens=4)
    early = Record(due=0, times=[0.5], end=1, outcome=OK, output_tokens=9)
    inside = Record(due=3, times=[4], end=5, outcome=OK, output_tokens=8)
    figures = load_report.summary([Run([early, inside, straddles], 10, begin=2)])
    assert figures["completed_per_s"] == 1 / 8
    assert figures["output_tokens_per_s"] == (8 + 2) / 8


def test_runs_are_counted_together():
    one = Record(due=0, times=[1], end=1, outcome=OK, output_tokens=2)
    figures = load_report.summary([Run([one], 4), Run([one, Record(due=0)], 6)])
    assert (figures["requests"], figures[OK], figures[ERROR]) == (3, 2, 1)
    assert figures["completed_per_s"] == 0.2
    assert figures["reasons"] == {"error: ": 1}


def test_figures_of_nothing_are_null_in_json():
    figures = load_report.strict(load_report.summary([Run([Record(due=0)], 4)]))
    assert figures["ttft_p99_ms"] is None and figures["completed_per_s"] == 0
    json.loads(json.dumps(figures), parse_constant=pytest.fail)


def test_ratios_in_turn_take_what_was_measured_around_it():
    # Twice as fast all along, on a machine that slows down.
    assert load_report.ratios_in_turn([200, 160, 120], [90, 70]) == [2, 2]
    with pytest.raises(ValueError):
        load_report.ratios_in_turn([1, 2], [1, 2])


def test_the_peak_is_that_of_the_time_asked_for():
    samples = [(0, 900), (10, 100), (20, 130), (30, 110)]
    assert load_report.peak(samples, 10, 20) == 130
    assert load_report.peak(samples, 25, 60) == 110


def chunked(*parts):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def event(text):
    return b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n\n"


USAGE = (b'data: {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 7,'
         b' "prompt_tokens_details": {"cached_tokens": 5}}}\n\n')
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
    event("a"), event("")[:9], event("")[9:] + event("b"), USAGE + b"data: [DONE]\n\n")


def test_events_are_read_however_they_are_cut():
    whole = load_client.SseReader()
    expected = whole.feed(STREAM)
    assert len(expected) == 5 and expected[-1] == b"[DONE]" and whole.ended
    for step in (1, 2, 7):
        reader, found = load_client.SseReader(), []
        for i in range(0, len(STREAM), step):
            found += reader.feed(STREAM[i:i + step])
        assert found == expected and reader.ended


async def with_server(answer, use):
    """use(endpoint) while a server gives each connection `answer`, in bytes; None:
    it never answers."""
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await asyncio.sleep(60)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await use(load_client.HttpClient(f"127.0.0.1:{port}"))
    finally:
        server.close()


def one_answer(answer, limit=20):
    async def use(client):
        return await load_client.open_loop(client, iter(take(1)), [0.01], limit)

    (record,) = asyncio.run(with_server(answer, use))
    return record


def test_an_answer_over_http_is_counted():
    record = one_answer(STREAM)
    assert record.outcome == OK and len(record.times) == 2
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (7, 5, 2)
    assert record.due <= record.sent <= record.times[0] <= record.end


@pytest.mark.parametrize("answer, outcome, why", [
    (b"HTTP/1.1 429 Too Many Requests\r\n\r\n{}", REFUSED, "429"),
    (b"HTTP/1.1 500 No\r\n\r\nbroken", ERROR, "500 broken"),
    (STREAM[:90], ERROR, "ended without [DONE]"),
    (b"HTTP/1.1 200 OK\r\n\r\ndata: {\"error\": {\"code\": \"internal\"}}\n\n", ERROR,
     "internal"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ERROR,
     "broke off: invalid literal for int() with base 16: b'xyz'"),
    (None, HUNG, "no end in 0.2 s"),
])
def test_what_is_no_answer_has_its_outcome(answer, outcome, why):
    record = one_answer(answer, 0.2 if answer is None else 20)
    assert (record.outcome, record.why) == (outcome, why)


def test_nobody_there_is_an_error():
    async def use():
        client = load_client.HttpClient("127.0.0.1:1")
        return await load_client.open_loop(client, iter(take(1)), [0.0])

    (record,) = asyncio.run(use())
    assert record.outcome == ERROR and record.why.startswith("not connected")


def test_a_closed_loop_asks_again_until_the_time_is_over():
    async def use(client):
        return await load_client.measured(
            load_client.closed_loop(client, iter(take(5000)), 3, 0.3), [os.getpid()], 0.3)

    run, about = asyncio.run(with_server(STREAM, use))
    assert len(run.records) > 3 and all(record.outcome == OK for record in run.records)
    assert about["rss_mb"] > 1 and about["client_cpu_share"] > 0
