"""A model that no accuracy could be trusted of is refused, in one line, before anything is computed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.data import from_memory, load
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.model_checks import check_model, for_gradients, is_random
from unmask.evaluation.models.targets import find_target, prepare_target
from unmask.gradients.bpda import View
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.straight_through import straight_through
from unmask.judging import Judge
from unmask.losses import margin
from unmask.models.forms import ModelForm
from unmask.models.model_wrappers import query
from unmask.randomness import make_keys
from unmask.threats import Linf
from unmask.types import Output, as_output

X = torch.linspace(0, 1, 4 * 64).reshape(4, 1, 8, 8)
LABELS = torch.tensor([0, 9, 3])


class Answer(nn.Module):
    """Anything at all, as a function of the flat image."""

    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.answer(x.flatten(1))


def fail(x: Tensor) -> Tensor:
    raise RuntimeError("mat1 and mat2 cannot be multiplied\nand a second line")


BAD: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "NaN": (lambda x: (x[:, :10] - 1).sqrt(), "gives NaN logits on clean images"),
    "Inf": (lambda x: 1 / (x[:, :10] * 0), "gives Inf logits on clean images"),
    "probabilities": (lambda x: x[:, :10].softmax(1), "returns probabilities: return the logits before"),
    "one number": (lambda x: x.sum(1), r"answers a tensor of shape \(4,\) to 4 images: return logits"),
    "no batch": (lambda x: x[:3, :10], r"answers a tensor of shape \(3, 10\) to 4 images"),
    "a set": (lambda x: {1, 2}, "answers a set: return logits"),
    "no name for it": (lambda x: {"scores": x}, "answers a dict of scores: .* name the logits with --output"),
    "few classes": (lambda x: x[:, :5], "labels go from 0 to 9, but the model has 5 classes: check that the data"),
    "an error": (fail, r"fails on images of shape \(4, 1, 8, 8\): mat1 and mat2 cannot be multiplied; check"),
}


@pytest.mark.parametrize("name", BAD)
def test_answers_that_cannot_be_judged(name: str) -> None:
    answer, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        check_model(Answer(answer), X, LABELS)
    assert "\n" not in str(caught.value)


def test_logits_pass() -> None:
    check_model(Answer(lambda x: x[:, :10]), X, LABELS)
    check_model(Answer(lambda x: -x[:, :10]), X, LABELS)
    check_model(Answer(lambda x: x[:, :10].log_softmax(1)), X, LABELS)  # every loss is the same of them
    for pair in (Output, lambda a, b: {"logits": a, "reject": b > 0}):
        check_model(Answer(lambda x, pair=pair: pair(x[:, :10], x[:, 0])), X, LABELS)  # type: ignore[misc]


def test_images_out_of_the_box() -> None:
    with pytest.raises(ValueError, match=r"images lie in \[-1, 1\]: give images in \[0, 1\]"):
        check_model(Answer(lambda x: x), 2 * X - 1, LABELS)


def test_training_mode_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Dropout(), nn.Linear(64, 10))).eval()
    check_model(model, X, LABELS)
    model.get_submodule("1.0").train()
    with pytest.raises(ValueError, match=r"training mode \(1\.0\): call model\.eval\(\)"):
        check_model(model, X, LABELS)


def test_an_audit_takes_a_copy_in_evaluation_mode_and_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 10)).train()
    target = prepare_target(model, load("digits", n=16), ExecutionConfig(strict=False))
    assert (target.draws, target.model.training, model.training) == (1, False, True)
    assert [note.kind for note in target.setup_findings] == ["training mode"]


class Vote(nn.Module):
    """The majority of the signs of 15 noisy copies of an image's mean: unanimous far from 0.5."""

    def __init__(self, noise: Callable[[tuple[int, ...]], Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        votes = (mean + 0.02 * self.noise((15, len(x))) > 0.5).float().mean(0)
        return torch.stack((1 - votes, votes), 1).round()


@pytest.mark.parametrize(
    "noise",
    [
        torch.randn,
        lambda size: torch.from_numpy(np.random.standard_normal(size)).float(),
        lambda size: torch.tensor([random.gauss(0, 1) for _ in range(15 * size[1])]).view(size),
    ],
    ids=["torch", "numpy", "random"],
)
def test_a_vote_that_is_unanimous_on_clean_images_is_random_between_them(
    noise: Callable[[tuple[int, ...]], Tensor],
) -> None:
    x = torch.cat((torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 4, 4), 0.9)))
    assert is_random(Vote(noise), x)
    assert not is_random(Vote(lambda size: 0 * noise(size)), x)  # it draws, and its answers are always the same


def test_a_generator_of_the_model_itself_is_asked_between_images() -> None:
    class Own(Vote):
        def __init__(self) -> None:
            super().__init__(lambda size: torch.from_numpy(self.generator.standard_normal(size)).float())
            self.generator = np.random.default_rng(0)

    assert is_random(Own(), torch.cat((torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 4, 4), 0.9))))


def test_is_random() -> None:
    assert not is_random(Answer(lambda x: x), X)
    assert is_random(Answer(lambda x: x + 1e-3 * torch.randn_like(x)), X)
    assert is_random(Answer(lambda x: x[:, torch.randperm(64)]), X)
    for bit in range(8):
        assert is_random(Answer(lambda x, bit=bit: x * (random.getrandbits(8) >> bit & 1)), X)  # type: ignore[misc]


class NoiseOfACounter(nn.Module):
    """Its noise has the number of the call as seed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        return x.flatten(1)[:, :10] + 0.3 * torch.randn(len(x), 10, generator=generator)


def test_a_refusal_that_is_drawn_is_random() -> None:
    assert is_random(Answer(lambda x: Output(x.flatten(1), torch.randn(len(x)))), X)
    assert not is_random(Answer(lambda x: Output(x.flatten(1), x.flatten(1)[:, 0])), X)


def test_noise_that_a_state_makes_is_judged_over_many_draws() -> None:
    """With one verdict an image, the worst of several attacks would be the worst of several draws."""
    assert is_random(NoiseOfACounter(), X)


BROKEN = {
    "build": ("def build(): pass", "returns NoneType: return an nn.Module"),
    "missing": (
        "",
        "has no function 'missing' that builds a model: give .*broken.py:FUNCTION, one of those it has: none",
    ),
    "number": (
        "from torch import nn\nfrom os.path import join\nnumber = 3\nclass Net(nn.Module): pass\ndef build(): pass\n"
        "def _own(): pass",
        "has no function 'number' that builds a model: give .*broken.py:FUNCTION, one of those it has: build, Net$",
    ),
    "raises": ("def raises(): raise KeyError('weights')", "fails: KeyError: 'weights'"),
    "leaves": ("import sys\ndef leaves(): sys.exit(7)", "fails: SystemExit: 7"),
    "needs": ("def needs(path): pass", r"fails: TypeError: needs\(\) missing 1 required"),
    "syntax": ("def syntax(:", r"fails when it is loaded: SyntaxError: .* line 1\)"),
    "imports": ("import no_such_module_at_all", "fails when it is loaded: ModuleNotFoundError"),
    "exits": ("raise SystemExit(0)", "fails when it is loaded: SystemExit: 0"),
}


@pytest.mark.parametrize("factory", BROKEN)
def test_a_factory_that_gives_no_model(tmp_path: Path, factory: str) -> None:
    text, message = BROKEN[factory]
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        find_target(f"{path}:{factory}", load("digits", n=8))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model",
            r"'model' is no name of a model; models: path/to/file\.py:factory, package\.module:factory, case:NAME",
        ),
        (
            "clf.joblib",
            r"is a file whose loading runs code that it holds: write a factory, def build\(\): return joblib",
        ),
        ("clf.pkl", "is a file whose loading runs code that it holds: write a factory"),
        ("net.pth", "is a file of weights: give timm:NAME --checkpoint FILE --num-classes K, or a factory"),
        ("model.py", "no file model.py: a target is named path/to/file.py:factory"),
        ("nowhere.py:build", "no file nowhere.py"),
        ("no_such_package.models:build", "module 'no_such_package.models' cannot be imported"),
        ("case:nope", "no case 'nope'; cases: plain-digits"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_target(name, load("digits", n=8))


def test_a_file_without_the_name_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(): pass")
    with pytest.raises(ValueError, match=r"mine.py names no function: give .*mine.py:FUNCTION, .* it has: build$"):
        find_target(f"{tmp_path}/mine.py", load("digits", n=8))


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_target.py").write_text("classes = 10")
    path = tmp_path / "target.py"
    path.write_text(
        "from torch import nn\nfrom neighbour_of_target import classes\n"
        "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()"
    )
    model = find_target(f"{path}:build", load("digits", n=8)).model
    assert model(X).shape == (4, 10)


def test_draws(models: Path) -> None:
    data = load("digits", n=8)
    fixed, noisy = (find_target(f"{models}:{factory}", data) for factory in ("linear", "noisy"))
    case = find_target("case:lwta-digits", data)
    assert (fixed.draws, fixed.uses_torch_random) == (1, False)
    assert (noisy.draws, noisy.uses_torch_random) == (16, True)
    assert (case.draws, case.uses_torch_random) == (16, False)  # draws by unmask's own functions


def test_what_torch_compiled_is_examined_as_it_was_written_and_scripts_as_one_operation() -> None:
    flat = nn.Flatten().eval()
    data = load("digits", n=8)
    assert prepare_target(torch.compile(flat), data, ExecutionConfig(strict=False)).model is flat  # type: ignore[arg-type]
    for strict in (True, False):
        target = prepare_target(
            torch.jit.script(flat), data, ExecutionConfig(strict=strict, form=ModelForm(reject_class=-1))
        )
        assert target.draws == 1
        assert [(note.kind, note.module) for note in target.setup_findings] == [("compiled", "")]


@pytest.mark.parametrize(("labels", "kinds"), [([1, 1, 1], ["one class"]), ([1, 1, 0], []), ([1], [])])
def test_images_of_one_class_are_noted(labels: list[int], kinds: list[str]) -> None:
    data = from_memory((X[: len(labels)], torch.tensor(labels)), len(labels))
    notes = prepare_target(Answer(lambda x: x[:, :10]), data).setup_findings
    assert [note.kind for note in notes] == kinds
    assert [note.where for note in notes] == ["all 3 images are of class 1, of 10 classes"] * len(kinds)


class Author(nn.Module):
    """Code that works on images that require no gradient."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.step = step
        self.net = nn.Linear(64, 10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(self.step(x).flatten(1))
        return answer


def by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().round(1))


def switched_off(x: Tensor) -> Tensor:
    x.requires_grad = False
    return (8 * x).round() / 8


def past_numpy(model: nn.Module) -> nn.Module:
    return straight_through(skip_to("net", nn.Flatten())(model))


@pytest.mark.parametrize(("step", "view"), [(by_numpy, past_numpy), (switched_off, straight_through)])
def test_code_that_fails_on_images_that_require_gradients_runs_without(
    step: Callable[[Tensor], Tensor], view: View
) -> None:
    model, data = Author(step), load("digits", n=8)
    x = data.batch()[0]
    target = prepare_target(model, data, ExecutionConfig(strict=False))
    with torch.no_grad():
        expected = model(x.clone())
    assert torch.equal(target.model(x.clone().requires_grad_()), expected)
    (found,) = target.setup_findings
    assert "fails on images that require gradients: RuntimeError" in found.where
    z = x.clone().requires_grad_()
    view(target.model)(z).sum().backward()
    assert z.grad is not None
    assert torch.allclose(z.grad.flatten(1), model.net.weight.sum(0).expand(8, -1), atol=1e-5)


def test_code_that_bears_gradients_is_left_as_it_is() -> None:
    model = Author(lambda x: x)
    assert for_gradients(model, X) == (model, None)


def test_a_file_may_parse_the_arguments_of_a_script_when_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "import argparse\nfrom torch import nn\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', type=int, default=10)\nwidth = parser.parse_args().width\n"
        "def build():\n    assert parser.parse_args().width == width\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width)).eval()\n"
    )
    with pytest.MonkeyPatch.context() as called:
        called.setattr("sys.argv", ["unmask", "audit", "script.py:build"])
        target = find_target(f"{path}:build", load("digits", n=8), ExecutionConfig(strict=False))
    assert target.model(X).shape == (4, 10)


def test_votes_may_be_integers_and_keep_the_gradient_of_a_view() -> None:
    class Votes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.flatten(1)[:, :30].unflatten(1, (3, 10)).argmax(2), 10).sum(1)

    data = load("digits", n=32)
    target = prepare_target(Votes().eval(), data, ExecutionConfig(strict=False))
    assert [found.where for found in target.setup_findings][:1] == ["its logits are integers, which have no gradient"]
    x = data.batch()[0].requires_grad_()
    view = as_output(straight_through(target.model)(x)).logits
    assert torch.equal(view, Votes()(x).float())
    assert torch.autograd.grad(view[:, 0].sum(), x)[0].any()


def test_logarithms_of_shares_may_be_minus_infinity() -> None:
    class Logarithms(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.flatten(1)[:, :10].argmax(1), 10).float().log()

    data = load("digits", n=32)
    target = prepare_target(Logarithms().eval(), data, ExecutionConfig(strict=False))
    x, y = data.batch()
    verdict = Judge(target.model, Linf(0.1)).verdict(x, x, y, make_keys(0, range(len(x)), "score"))
    assert torch.equal(verdict.predicted[0], x.flatten(1)[:, :10].argmax(1))
    assert (margin(query(target.model, x), y).abs() == 100).all()


def test_an_array_of_numpy_is_an_answer() -> None:
    class Arrays(nn.Module):
        def forward(self, x: Tensor) -> np.ndarray[Any, Any]:
            return x.detach().numpy().reshape(len(x), -1)[:, :10]

    data = load("digits", n=8)
    target = prepare_target(Arrays().eval(), data, ExecutionConfig(strict=False))
    x = data.batch()[0]
    assert torch.equal(target.model(x), x.flatten(1)[:, :10])
    assert any("array of numpy" in found.where for found in target.setup_findings)
