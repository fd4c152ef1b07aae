"""Models of which nothing but their answers can be had: functions of arrays, other programs, services."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

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
        """A copy that calls the same object, which may not support copies, and has hooks of its own."""
        twin = type(self).__new__(type(self))
        vars(twin).update({name: value if name == "call" else copy(value) for name, value in vars(self).items()})
        return twin

    def forward(self, x: Tensor) -> Output:
        distinct, which = torch.unique_consecutive(x.detach().cpu(), dim=0, return_inverse=True)
        images = np.ascontiguousarray(distinct.numpy().astype(np.float32, copy=False))
        answer = self.call(images)
        scores, reject = answer if isinstance(answer, tuple) else (answer, None)
        found = _tensor(scores, len(distinct))[which].to(x.device)
        return Output(found, None if reject is None else _tensor(reject, len(distinct))[which].to(x.device))


def http_model(
    url: str, timeout: float = 60.0, *, headers: Mapping[str, str] | None = None, rate: float | None = None
) -> BlackBoxModel:
    """A model behind ``http://`` or ``https://``, queried by POST in JSON.

    The request is ``{"images": [...]}``, nested lists (B, C, H, W) of numbers in [0, 1], at most 256 images.
    The answer is ``{"scores": [...]}``, nested lists (B, K), and may have ``"reject"`` (B,), above 0 where an
    image is refused.

    Args:
        timeout: seconds to wait for an answer.
        headers: of each request, such as ``{"Authorization": "Bearer ..."}``. They are sent to this address alone: a
            redirection is an error.
        rate: requests in a second, at most; None for no limit.

    Raises UnmaskError with one line for a wrong address, a rate that is not positive and, when it is asked, for a
    service that does not answer, or not so.
    """
    _check_address(url)
    if rate is not None and not 0 < rate < math.inf:
        raise UnmaskError(f"a rate limit of {rate:g} requests per second", "give a positive number")
    pace = _Pace(0.0 if rate is None else 1 / rate)
    sent = {**(headers or {}), "Content-Type": "application/json"}

    def call(images: NDArray[np.float32]) -> Any:
        parts = []
        for start in range(0, len(images), _MOST):
            pace.wait()
            parts.append(_post(url, images[start : start + _MOST], timeout, sent))
        scores = np.concatenate([np.asarray(part["scores"], np.float32) for part in parts])
        if "reject" not in parts[0]:
            return scores
        return scores, np.concatenate([np.asarray(part["reject"], np.float32) for part in parts])

    return BlackBoxModel(call)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        raise UnmaskError(f"{url!r} is no address of a service", "give one such as http://localhost:8000/scores")


class _Pace:
    """Lets calls through at least ``seconds`` apart, whatever happens to the clock meanwhile."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last, self.lock = seconds, -math.inf, threading.Lock()

    def wait(self) -> None:
        with self.lock:
            due = self.last + self.seconds - time.monotonic()
            if due > 0:
                time.sleep(min(due, self.seconds))
            self.last = time.monotonic()


class _NoRedirection(HTTPRedirectHandler):
    """Headers with a secret are for one address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, images: NDArray[np.float32], timeout: float, headers: Mapping[str, str]) -> dict[str, Any]:
    body = json.dumps({"images": images.tolist()}).encode()
    try:
        with build_opener(_NoRedirection).open(Request(url, body, dict(headers)), timeout=timeout) as response:
            answer = json.loads(response.read())
    except HTTPError as error:
        error.close()
        raise UnmaskError(f"{url} answers {error.code} {error.reason}", _remedy(error)) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        late = isinstance(reason, TimeoutError)
        what = f"gives no answer within {timeout:g} s" if late else f"cannot be reached ({reason})"
        raise UnmaskError(f"{url} {what}", "check the address, and that the service runs") from error
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


def _remedy(error: HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"give the address {error.headers.get('Location')}"
    known = {401: "give --header 'Authorization: ...'", 403: "give other headers", 429: "give a lower --rate-limit"}
    return known.get(error.code, "see its own log")


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
