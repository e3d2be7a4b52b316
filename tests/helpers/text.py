"""Texts that several tests share."""

import random

RNG = random.Random(5)
# Random characters of all of Unicode and of ASCII, spaces and newlines.
UNICODE_TEXT = "".join(
    chr(RNG.choice([RNG.randrange(0xD800), RNG.randrange(0xE000, 0x110000), RNG.randrange(33, 127), 32, 10]))
    for _ in range(3000)
)
