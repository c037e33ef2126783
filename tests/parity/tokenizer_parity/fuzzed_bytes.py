"""Byte strings for tokenizer comparisons: the same ones for the same seed.

Text with bytes changed, dropped and put in, characters cut short, overlong
forms and surrogates, bytes at random. Without NUL, at which callers of
llama.cpp cut, and without what would be code points above U+10FFFF, on which
it gives up.
"""

import random

OVERLONG = [b"\xc1\x81", b"\xe0\x81\x81", b"\xf0\x80\x81\x81", b"\xc0\x8a"]
SURROGATES = [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"]


def _damage(rng, data):
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:at] + bytes([rng.randint(1, 255)]) + data[at + 1:]
        elif kind == 1:
            data = data[:at] + data[at + 1:]
        elif kind == 2:
            data = data[:at] + rng.choice(OVERLONG) + data[at:]
        elif kind == 3:
            data = data[:at] + rng.choice(SURROGATES) + data[at:]
        elif kind == 4:
            data = data[:at] + rng.choice([b" ", b"\n"]) * 3 + data[at:]
        else:
            data = data[:at]
    return data


def fuzzed_bytes(lines, count, seed):
    """`count` byte strings made of the strings `lines`."""
    rng = random.Random(seed)
    strings = []
    while len(strings) < count:
        if rng.randrange(4) == 0:
            data = rng.randbytes(rng.randint(1, 60))
        else:
            data = _damage(rng, rng.choice(lines).encode()[:300])
        strings.append(bytes(
            0xF3 if 0xF4 <= byte <= 0xF7 else byte for byte in data if byte))
    return strings
