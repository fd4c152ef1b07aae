"""Models without gradients: functions of arrays, and a service on this machine."""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch

from unmask.errors import UnmaskError
from unmask.models.black_box_models import BlackBoxModel, http_model
from unmask.models.forms import takes

X = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))


@contextmanager
def service(
    answer: Callable[[Any], bytes], status: int = 200, seen: list[Any] | None = None, location: str = ""
) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if seen is not None:
                seen.append((dict(self.headers), time.monotonic()))
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer(asked)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked has waited long enough
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/scores"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def means(asked: Any) -> bytes:
    return json.dumps({"scores": np.mean(asked["images"], (2, 3)).tolist()}).encode()


def late(asked: Any) -> bytes:
    time.sleep(0.6)
    return means(asked)


def test_a_function_of_arrays_is_a_model_without_a_gradient() -> None:
    model = BlackBoxModel(lambda x: x.mean((2, 3)))
    answer = model(X.clone().requires_grad_())
    assert torch.allclose(answer.logits, X.mean((2, 3)))
    assert (answer.logits.requires_grad, answer.reject) == (False, None)


def test_a_copy_calls_the_same_object_and_has_hooks_of_its_own() -> None:
    model = BlackBoxModel(lambda x: x.mean((2, 3)))
    for _ in range(2):  # a hook that stayed on the model would act twice
        assert takes(model, pixel_max=255)(X).logits.allclose(255 * X.mean((2, 3)))
    assert model(X).logits.allclose(X.mean((2, 3)))
    assert copy.deepcopy(model).call is model.call


def test_the_same_neighbours_are_asked_about_once() -> None:
    asked: list[int] = []

    def count(x: Any) -> Any:
        asked.append(len(x))
        return x.mean((2, 3))

    rows = X[[0, 1, 1, 1, 0]]
    assert torch.allclose(BlackBoxModel(count)(rows).logits, rows.mean((2, 3)))
    assert asked == [3]


def test_a_refusal_may_come_with_the_scores() -> None:
    answer = BlackBoxModel(lambda x: (x.mean((2, 3)), x[:, 0, 0, 0] - 0.5))(X)
    assert answer.reject is not None
    assert torch.equal(answer.reject, X[:, 0, 0, 0] - 0.5)


def test_another_number_of_rows_is_told() -> None:
    with pytest.raises(ValueError, match=r"answers \(1, 2\) to 5 images"):
        BlackBoxModel(lambda x: x.mean((2, 3))[:1])(X)


def test_a_service_is_asked_in_requests_of_256() -> None:
    seen: list[int] = []

    def answer(asked: Any) -> bytes:
        seen.append(len(asked["images"]))
        return means(asked)

    many = torch.rand(300, 2, 1, 1)
    with service(answer) as url:
        logits = http_model(url)(many).logits
    assert torch.allclose(logits, many.mean((2, 3)))
    assert seen == [256, 44]


def test_a_service_may_refuse() -> None:
    def answer(asked: Any) -> bytes:
        return json.dumps({**json.loads(means(asked)), "reject": [1.0] * len(asked["images"])}).encode()

    with service(answer) as url:
        assert http_model(url)(X).reject.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (lambda _: b"oops", 200, "answers no JSON: it must be"),
        (lambda _: b"[1, 2]", 200, "answers JSON of another form"),
        (lambda _: b'{"scores": [[1, 2], [3]]}', 200, "answers JSON of another form"),
        (lambda _: b'{"scores": [["a"]]}', 200, "answers JSON of another form"),
        (lambda _: b'{"scores": [1, 2]}', 200, "answers JSON of another form"),
        (lambda _: b'{"scores": [[1, 2]]}', 200, "answers 1 rows of scores to 5 images"),
        (lambda _: b"", 503, "answers 503 Service Unavailable: see its own log"),
        (lambda _: b"", 401, "answers 401 Unauthorized: give --header 'Authorization: ...'"),
        (lambda _: b"", 429, "answers 429 Too Many Requests: give a lower --rate-limit"),
        (late, 200, "gives no answer within 0.2 s"),
    ],
)
def test_a_service_that_fails_is_told_in_one_line(answer: Callable[[Any], bytes], status: int, said: str) -> None:
    with service(answer, status) as url, pytest.raises(ValueError, match=said) as caught:
        http_model(url, timeout=0.2 if "within" in said else 10)(X)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    told = r"scores cannot be reached \(.*refused\): check the address, and that the service runs$"
    with pytest.raises(ValueError, match=told):
        http_model("http://127.0.0.1:9/scores", timeout=5)(X)


@pytest.mark.parametrize("url", ["http://[x", "http://", "http://x:abc/", "http://a b/", "ftp://x/", "localhost:80/x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UnmaskError, match=f"^{re.escape(repr(url))} is no address of a service: give one such as http"):
        http_model(url)


def test_headers_are_sent_and_not_to_where_a_redirection_leads() -> None:
    seen: list[Any] = []
    stolen: list[Any] = []
    secret = {"Authorization": "Bearer 7", "content-type": "text/plain"}
    with service(means, seen=seen) as url:
        http_model(url, headers=secret)(X)
    ((headers, _),) = seen
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer 7", "application/json")
    with (
        service(means, seen=stolen) as other,
        service(means, 307, location=other) as url,
        pytest.raises(ValueError, match=f"{url} answers 307 Temporary Redirect: give the address {other}"),
    ):
        http_model(url, headers=secret)(X)
    assert stolen == []


def test_requests_keep_their_distance_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    with service(means, seen=seen) as url:
        model = http_model(url, rate=10)
        for images in X[:4, None]:
            model(images)
        times = [when for _, when in seen]
        assert all(later - sooner >= 0.09 for sooner, later in itertools.pairwise(times))
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + 1e7)
        model(X[:1])
        monkeypatch.undo()
        before = real()
        model(X[1:2])  # the last request seems to lie months ahead
        assert real() - before < 5


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="requests per second: give a positive number"):
        http_model("http://127.0.0.1:9/scores", rate=rate)
