"""What is asked of a server under load, and when: prompts that share beginnings,
answers of many lengths, arrivals of a Poisson process. All of it follows from
seeds, so that two servers can be asked the same."""

import dataclasses
import math
import random

BOS = 2


@dataclasses.dataclass(frozen=True)
class Mix:
    """Ranges are in tokens, inclusive; `prefix` is uniform, the others are uniform
    in their logarithm: most are short, few are long, as with people."""

    prefixes: int = 8
    prefix: tuple = (256, 512)
    own: tuple = (16, 512)
    output: tuple = (8, 128)

    def __str__(self):
        return (f"one of {self.prefixes} shared beginnings of {self.prefix[0]}-"
                f"{self.prefix[1]} tokens, then {self.own[0]}-{self.own[1]} of its own,"
                f" {self.output[0]}-{self.output[1]} to generate")


@dataclasses.dataclass(frozen=True)
class Request:
    prompt: list
    output_tokens: int
    seed: int


def log_uniform(source, bounds):
    low, high = bounds
    value = math.exp(source.uniform(math.log(low), math.log(high + 1)))
    return min(high, int(value))


def shared_prefixes(mix, text):
    """The shared beginnings, always the same ones of the same text."""
    source = random.Random("prefixes")
    cuts = []
    for _ in range(mix.prefixes):
        length = source.randint(*mix.prefix)
        begin = source.randrange(len(text) - length)
        cuts.append([BOS, *text[begin:begin + length - 1]])
    return cuts


def requests(mix, text, seed):
    """Requests without end. text: token ids that prompts are cut from."""
    source = random.Random(f"requests {seed}")
    prefixes = shared_prefixes(mix, text)
    while True:
        prefix = source.choice(prefixes)
        own = log_uniform(source, mix.own)
        begin = source.randrange(len(text) - own)
        yield Request([*prefix, *text[begin:begin + own]],
                      log_uniform(source, mix.output), source.randrange(1 << 31))


def poisson_times(rate, seconds, seed):
    """Seconds after the start at which requests arrive, `rate` a second."""
    if rate <= 0:
        raise ValueError(f"the rate is {rate}, expected more than 0")
    source = random.Random(f"arrivals {seed}")
    times, now = [], source.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += source.expovariate(rate)
    return times
