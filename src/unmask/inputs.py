"""The contract for what users pass in: images, labels and the size of the ball. One place checks it, for all entries.

Images are finite float32 (B, C, H, W) in [0, 1]; labels are int64 (B,), each a class of the model; both have the same
length and device. Forms whose meaning is certain are converted: numpy arrays, uint8 images (0 to 255), other
floating-point types, other integer labels. Anything else raises UnmaskError with one line that says what was given and
what to give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = [
    "as_batch",
    "as_candidates",
    "as_images",
    "as_labels",
    "check_count",
    "check_eps",
    "check_shape",
    "check_white",
]

_ROUNDING = 1e-6
"""By how much arithmetic in float32 may leave [0, 1]."""


_DARK = 64
"""Below this the largest value of uint8 images is taken for their white, since hardly any images are so dark."""

_BLACK = 1 / 255 + _ROUNDING
"""Up to this the largest value of floating-point images is taken for that of images divided by 255 twice."""


def as_images(images: Any, name: str = "images") -> Tensor:
    """Images as float32 (B, C, H, W) in [0, 1].

    Args:
        images: tensor or numpy array; uint8 values are divided by 255.
        name: what an error calls them.

    Raises UnmaskError for another type, shape or range, and for NaN or infinite values.

    >>> as_images(np.array([[[[0, 255]]]], np.uint8)).flatten().tolist()
    [0.0, 1.0]
    >>> as_images(torch.full((1, 1, 1, 2), 128.0))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: images lie in [128, 128]: divide them by 255, so that they lie in [0, 1]
    """
    x = as_candidates(images, name)
    if not x.isfinite().all():
        raise UnmaskError(f"{name} hold NaN or infinite values", "give finite values in [0, 1]")
    low, high = (float(edge) for edge in x.detach().aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise UnmaskError(f"{name} lie in [{low:.6g}, {high:.6g}]", _rescaling(low, high))
    x = x.clone() if x.is_inference() else x  # tensors of inference mode cannot be part of a graph
    return x if low >= 0 and high <= 1 else x.clamp(0, 1)


def as_candidates(images: Any, name: str = "images") -> Tensor:
    """As :func:`as_images`, with values that may lie anywhere: adversarial examples for a judge."""
    x = _tensor(images, name, "float32 (B, C, H, W) in [0, 1]")
    if x.dtype == torch.uint8:
        check_white(x, name)
        x = x.float() / 255
    elif not x.is_floating_point():
        raise UnmaskError(f"{name} are {_name(x.dtype)}", "give float32 in [0, 1], or uint8 from 0 to 255")
    check_shape(x, name)
    return x.float()


def check_shape(x: Tensor, name: str = "images") -> None:
    """Refuse images that are not (B, C, H, W), as far as the shape shows it."""
    if x.ndim != 4 or not len(x):
        hint = "; add the batch dimension with x[None]" if x.ndim == 3 else ""
        raise UnmaskError(f"{name} have shape {tuple(x.shape)}", f"give (B, C, H, W) with B > 0{hint}")
    if x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4) and x.shape[2] > 4:
        raise UnmaskError(
            f"{name} have shape {tuple(x.shape)}, which looks like (B, H, W, C)",
            "give (B, C, H, W), as x.permute(0, 3, 1, 2) does",
        )


def check_white(x: Tensor, name: str = "images") -> None:
    """Refuse images of which even the brightest is so dark that 255, or 1 of floating-point ones, is hardly white."""
    if x.dtype != torch.uint8:
        if x.numel() and 0 < (highest := float(x.max())) <= _BLACK:
            raise UnmaskError(
                f"{name} go up to {highest:.3g}, where 1 is white, as if they were divided by 255 twice",
                f"divide them once; or give x / {highest:.3g}, if that is white",
            )
        return
    white = int(x.max()) if x.numel() else 255
    if white < _DARK:
        raise UnmaskError(
            f"{name} are uint8 and go up to {white}, where 255 is white",
            f"give x.float() / {max(white, 1)}, if {white} is white",
        )


def as_labels(labels: Any, classes: int | None = None) -> Tensor:
    """Labels as int64 (B,), each from 0 to ``classes`` - 1 (where the number of classes is known).

    Raises UnmaskError for labels that are not whole numbers of an integer type, one-hot rows, and labels without a
    class.

    >>> as_labels(np.array([3, 1], np.int32)).dtype
    torch.int64
    >>> as_labels(torch.eye(2))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: labels have shape (2, 2), as one-hot rows have: give class numbers (B,), as \
y.argmax(1) does
    """
    y = _tensor(labels, "labels", "int64 (B,)")
    if y.ndim == 2 and y.shape[1] > 1:
        raise UnmaskError(
            f"labels have shape {tuple(y.shape)}, as one-hot rows have", "give class numbers (B,), as y.argmax(1) does"
        )
    if y.ndim != 1:
        hint = ", as y.flatten() does" if y.ndim == 2 else ""
        raise UnmaskError(f"labels have shape {tuple(y.shape)}", f"give class numbers (B,){hint}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UnmaskError(f"labels are {_name(y.dtype)}", "give class numbers as int64, as y.long() does")
    y = y.long()
    if len(y) and (int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes)):
        known = "classes start at 0" if classes is None else f"the model has {classes} classes"
        hint = "check that the data set is the model's" if int(y.min()) >= 0 else "leave out images without a class"
        raise UnmaskError(f"labels go from {int(y.min())} to {int(y.max())}, but {known}", hint)
    return y


def as_batch(images: Any, labels: Any, classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and their labels (B,), as of :func:`as_images` and :func:`as_labels`.

    Raises UnmaskError as these do, and for different lengths or devices.

    >>> as_batch(torch.rand(2, 1, 4, 4), [1])
    Traceback (most recent call last):
    unmask.errors.UnmaskError: there are 2 images and 1 labels: give one label an image
    """
    x, y = as_images(images), as_labels(labels, classes)
    if len(x) != len(y):
        raise UnmaskError(f"there are {len(x)} images and {len(y)} labels", "give one label an image")
    if x.device != y.device:
        raise UnmaskError(f"images are on {x.device} and labels on {y.device}", "move both to the model's device")
    return x, y


def check_eps(norm: str, eps: float, unit: str) -> None:
    """Refuse a size of the ball that nobody means: 0, and more than the whole range of a pixel in Linf.

    >>> check_eps("linf", 8, "raw")
    Traceback (most recent call last):
    unmask.errors.UnmaskError: eps 8 is more than the whole range [0, 1] of a pixel: did you mean 8/255?
    """
    if not eps > 0:
        raise UnmaskError(
            f"eps is {eps:g}", "give a size above 0, such as 8/255; the clean accuracy is always reported"
        )
    if norm.lower() == "linf" and unit in ("raw", "rms", "rms_pixel") and eps > 1:
        meant = f"did you mean {eps:g}/255?" if eps <= 255 else "give a size of at most 1, such as 8/255"
        raise UnmaskError(f"eps {eps:g} is more than the whole range [0, 1] of a pixel", meant)


def check_count(n: object) -> None:
    """Refuse a number of images that is no whole number, or below 1.

    >>> check_count(0)
    Traceback (most recent call last):
    unmask.errors.UnmaskError: n is 0: give a whole number of images, 1 at least
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UnmaskError(f"n is {n!r}", "give a whole number of images, 1 at least")


def _tensor(values: Any, name: str, wanted: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        return torch.from_numpy(np.array(values))  # a copy: models may write into what they are given
    except (TypeError, ValueError) as error:
        raise UnmaskError(f"{name} are a {type(values).__name__}", f"give a tensor or numpy array, {wanted}") from error


def _rescaling(low: float, high: float) -> str:
    if low >= -0.5 and high <= 1.5:
        return "clip them to [0, 1]"
    if low >= 0 and high <= 255:
        return f"divide them by {'255' if high > _DARK else 'the value of white'}, so that they lie in [0, 1]"
    return "give images in [0, 1], and normalise inside the model"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
