"""The 8x8 handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from unmask.data.dataset import Dataset

__all__ = ["digits"]

_TEST = 500


def digits(split: str) -> Dataset:
    """1797 grey 8x8 digits, pixels 0 .. 16: 500 in the test split and 1297 in the train split.

    scikit-learn keeps them writer by writer, so they are shuffled once by
    ``numpy.random.RandomState(0).permutation(1797)``, a sequence that NumPy has frozen; the test split
    is the first 500 of that order and the train split the rest.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).

    >>> test = digits("test")
    >>> len(test), tuple(test.images.shape[1:]), test.scale
    (500, (1, 8, 8), 16)
    """
    from sklearn.datasets import load_digits  # takes a second to import

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = order[:_TEST] if split == "test" else order[_TEST:]
    images = torch.from_numpy(pixels[chosen].astype(np.uint8)).reshape(-1, 1, 8, 8)
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", images, torch.from_numpy(labels[chosen]).long(), classes, "digits", scale=16)
