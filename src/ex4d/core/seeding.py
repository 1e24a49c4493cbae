"""Randomness comes from one seed and a name, never from a global state."""

import hashlib

import numpy as np


def make_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, and on nothing else.

    Two purposes with one seed get independent streams, so that adding a random choice in one place
    never changes another.
    """
    text = "/".join([str(seed), *map(str, names)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))
