"""Randomness keyed by (seed, example, purpose), so that no result depends on how examples are batched.

A :class:`Keys` holds a 64-bit key for each example of a batch. Inside ``with use_keys(keys):``
every random number that is drawn for row i depends on the key of row i and on how many draws came
before, and on nothing else: not on the batch size, the other rows, the device or the process.
:func:`uniform` and :func:`normal` draw explicitly; the random operations of torch (``torch.rand``,
``dropout``, ``bernoulli_`` ...) that a model calls are replaced by keyed ones, so that models written
by others are repeatable too. A draw whose first dimension is a multiple of the batch is taken for copies
of it, one after the other; any other is shared by the whole batch and keyed by (seed, purpose) alone.

Outside of such a block :func:`uniform` and :func:`normal` use torch's global generator.

The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) in counter mode.
"""

from unmask.randomness.draws import current, draws_numbers, normal, replay, uniform, use_keys, use_rows
from unmask.randomness.keys import Keys, make_keys

__all__ = ["Keys", "current", "draws_numbers", "make_keys", "normal", "replay", "uniform", "use_keys", "use_rows"]
