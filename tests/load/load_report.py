"""What became of the requests of a load, in figures."""

import dataclasses
import math

OK, REFUSED, ERROR, HUNG = "ok", "refused", "error", "hung"


@dataclasses.dataclass
class Record:
    """One request. Times are seconds after the start of the run. Latencies count
    from `due`, when it was to arrive, also where the client was late to send it."""

    due: float
    sent: float = 0.0
    # When the answer's messages with tokens came.
    times: list = dataclasses.field(default_factory=list)
    end: float = 0.0
    outcome: str = ERROR
    why: str = ""  # of what is not OK
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def first_token(self):
        return self.times[0] - self.due

    def latency(self):
        return self.end - self.due

    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]


def percentile(values, percent):
    """Of the values, the least that `percent` of them do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclasses.dataclass
class Run:
    """Requests that arrived within `seconds`. What is completed and generated is
    counted from `begin` to `seconds`: before it a closed loop fills, and what is
    left at the end is answered in a calm that is not that of the load."""

    records: list
    seconds: float
    begin: float = 0.0

    def completed(self):
        return sum(record.outcome == OK and self.begin < record.end <= self.seconds
                   for record in self.records)

    def output_tokens(self):
        return sum(tokens_until(record, self.seconds) - tokens_until(record, self.begin)
                   for record in self.records if record.outcome == OK)

    def prompt_tokens(self):
        return sum(record.prompt_tokens for record in self.records
                   if record.outcome == OK and record.times
                   and self.begin < record.times[0] <= self.seconds)


def tokens_until(record, second):
    """Generated tokens that had come by then; those of a message count alike."""
    if not record.times:
        return 0
    came = sum(time <= second for time in record.times)
    return record.output_tokens * came / len(record.times)


def summary(runs):
    """Figures of runs under the same load; latencies are those of all of them."""
    records = [record for run in runs for record in run.records]
    good = [record for record in records if record.outcome == OK]
    arrived = sum(run.seconds for run in runs)
    counted = sum(run.seconds - run.begin for run in runs)
    output = sum(run.output_tokens() for run in runs)
    first = [record.first_token() for record in good if record.times]
    whole = [record.latency() for record in good]
    gaps = [gap for record in good for gap in record.gaps()]
    asked = sum(record.prompt_tokens for record in good)
    return {
        "seconds": arrived,
        "requests": len(records),
        **{name: sum(record.outcome == name for record in records)
           for name in (OK, REFUSED, ERROR, HUNG)},
        "reasons": reasons(records),
        "offered_per_s": len(records) / arrived,
        "completed_per_s": sum(run.completed() for run in runs) / counted,
        "output_tokens_per_s": output / counted,
        "total_tokens_per_s": (output + sum(run.prompt_tokens() for run in runs)) / counted,
        "ttft_p50_ms": 1000 * percentile(first, 50),
        "ttft_p99_ms": 1000 * percentile(first, 99),
        "gap_p50_ms": 1000 * percentile(gaps, 50),
        "gap_p99_ms": 1000 * percentile(gaps, 99),
        "e2e_p50_ms": 1000 * percentile(whole, 50),
        "e2e_p99_ms": 1000 * percentile(whole, 99),
        "cached_share": sum(r.cached_tokens for r in good) / asked if asked else 0.0,
        "late_p99_ms": 1000 * percentile([r.sent - r.due for r in records], 99),
    }


def strict(row):
    """The row as JSON can hold it: what is not a number is null."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()}


def reasons(records):
    """{what went wrong: how often}, of all that was not answered."""
    counts = {}
    for record in records:
        if record.outcome != OK:
            what = f"{record.outcome}: {record.why}"
            counts[what] = counts.get(what, 0) + 1
    return counts


def ratios_in_turn(ours, theirs):
    """Of each of theirs, the mean of ours right before and right after it, to it.
    Both were measured in turn, ours first and last."""
    if len(ours) != len(theirs) + 1:
        raise ValueError(f"{len(ours)} of ours, expected {len(theirs) + 1}")
    return [(before + after) / 2 / between
            for before, between, after in zip(ours, theirs, ours[1:])]


def peak(samples, begin, end):
    """The most of [(second, bytes)] from one second to another."""
    return max(size for second, size in samples if begin <= second <= end)


# (key, title, format) of the lines of a table.
COLUMNS = [
    ("what", "load", ""), ("offered_per_s", "offered/s", ".2f"),
    ("completed_per_s", "done/s", ".2f"), ("output_tokens_per_s", "out tok/s", ".0f"),
    ("total_tokens_per_s", "all tok/s", ".0f"), ("ttft_p50_ms", "TTFT p50 ms", ".0f"),
    ("ttft_p99_ms", "p99", ".0f"), ("gap_p50_ms", "gap p50 ms", ".1f"),
    ("gap_p99_ms", "p99", ".1f"), ("e2e_p99_ms", "whole p99 ms", ".0f"),
    ("requests", "requests", "d"), (REFUSED, "refused", "d"), (ERROR, "errors", "d"),
    (HUNG, "hung", "d"), ("cached_share", "from cache", ".0%"),
    ("rss_mb", "RSS MB", ".0f"), ("client_cpu_share", "client CPU", ".0%"),
    ("late_p99_ms", "late p99 ms", ".1f"),
]
