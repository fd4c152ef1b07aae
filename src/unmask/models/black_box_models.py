"""Models of which nothing but their answers can be had: functions of arrays, other programs, services."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.types import Output

__all__ = ["ArrayFunction", "BlackBoxModel", "http_model"]

ArrayFunction = Callable[[NDArray[np.float32]], Any]
"""Images (B, C, H, W) in [0, 1], float32 -> scores (B, K): an array or nested lists."""

_MOST = 256
"""Images in one request."""


class BlackBoxModel(nn.Module):
    """A model that answers scores and has no gradient: any function of arrays.

    Scores may be logits, probabilities, counts of votes, or ones for the class and zeros for the rest. Of
    equal neighbouring images cost one query.

    >>> model = BlackBoxModel(lambda x: x.mean((2, 3)))
    >>> model(torch.tensor([[[[0.5]], [[0.25]]]])).logits
    tensor([[0.5000, 0.2500]])
    """

    def __init__(self, call: ArrayFunction) -> None:
        super().__init__()
        self.call = call
        self.eval()

    def __deepcopy__(self, memo: Any) -> BlackBoxModel:
        """Itself: the object that it calls may not support copies."""
        return self

    def forward(self, x: Tensor) -> Output:
        distinct, which = torch.unique_consecutive(x.detach().cpu(), dim=0, return_inverse=True)
        images = np.ascontiguousarray(distinct.numpy().astype(np.float32, copy=False))
        answer = self.call(images)
        scores, reject = answer if isinstance(answer, tuple) else (answer, None)
        found = _tensor(scores, len(distinct))[which].to(x.device)
        return Output(found, None if reject is None else _tensor(reject, len(distinct))[which].to(x.device))


def http_model(url: str, timeout: float = 60.0) -> BlackBoxModel:
    """A model behind ``http://`` or ``https://``, queried by POST in JSON.

    The request is ``{"images": [...]}``, nested lists (B, C, H, W) of numbers in [0, 1], at most 256 images.
    The answer is ``{"scores": [...]}``, nested lists (B, K), and may have ``"reject"`` (B,), above 0 where an
    image is refused.

    Args:
        timeout: seconds to wait for an answer.

    Raises UnmaskError with one line, when it is asked, for a service that does not answer, or not so.
    """

    def call(images: NDArray[np.float32]) -> Any:
        parts = [_post(url, images[start : start + _MOST], timeout) for start in range(0, len(images), _MOST)]
        scores = np.concatenate([np.asarray(part["scores"], np.float32) for part in parts])
        if "reject" not in parts[0]:
            return scores
        return scores, np.concatenate([np.asarray(part["reject"], np.float32) for part in parts])

    return BlackBoxModel(call)


def _post(url: str, images: NDArray[np.float32], timeout: float) -> dict[str, Any]:
    body = json.dumps({"images": images.tolist()}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=timeout) as response:
            answer = json.loads(response.read())
    except HTTPError as error:
        error.close()
        raise UnmaskError(f"{url} answers {error.code} {error.reason}", "see its own log") from error
    except (URLError, OSError) as error:  # a timeout is one too
        reason = getattr(error, "reason", error)
        raise UnmaskError(f"{url} gives no answer within {timeout:g} s ({reason})", "check that it runs") from error
    except ValueError as error:
        raise UnmaskError(f"{url} answers no JSON", _FORM) from error
    if (
        not isinstance(answer, dict)
        or not _numbers(answer.get("scores"), 2)
        or not _numbers(answer.get("reject", []), 1)
    ):
        raise UnmaskError(f"{url} answers JSON of another form", _FORM)
    if len(answer["scores"]) != len(images):
        raise UnmaskError(f"{url} answers {len(answer['scores'])} rows of scores to {len(images)} images", _FORM)
    return answer


def _numbers(values: Any, ndim: int) -> bool:
    try:
        return np.asarray(values, np.float32).ndim == ndim
    except (TypeError, ValueError):
        return False  # ragged, or no numbers


_FORM = 'it must be {"scores": [...]}, a row of numbers for each image'


def _tensor(values: Any, rows: int) -> Tensor:
    found = torch.from_numpy(np.array(values, dtype=np.float32))
    if not found.ndim or len(found) != rows:
        raise UnmaskError(
            f"the model answers {tuple(found.shape)} to {rows} images", "return one row of scores for each"
        )
    return found
