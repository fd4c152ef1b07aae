"""Models as people write them give the figure of the network that they hold: 0 % at Linf 0.15 on the digits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import AttackResult, run_attack
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target, prepare_target
from unmask.judging import Judge
from unmask.losses import margin
from unmask.models.forms import ModelForm
from unmask.threats import Linf

DATA = load("digits", n=32)  # a multiple of sixteen: such batches are not filled up
X, Y = DATA.batch()
NET = find_case("plain-digits").load()


class Around(nn.Module):
    def __init__(
        self, before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor], object] = lambda z: z
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = copy.deepcopy(NET), before, after
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.after(self.net(self.before(x)))


def in_place_under_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.mul_(3).sub_(1)
    return (x + 1) / 3


def in_place_by_numpy(x: Tensor) -> Tensor:
    shared = x.detach().numpy()
    shared *= 4
    return x / 4


class ViewAfterConvolution(Around):
    def __init__(self) -> None:
        super().__init__()
        twice = self.twice = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        twice.weight.data.zero_()[:, :, 1, 1] = 1
        self.before = self.first_channel

    def first_channel(self, x: Tensor) -> Tensor:
        made: Tensor = self.twice(x)
        return made.view(-1, 128)[:, :64].view(-1, 1, 8, 8)


class InDoubles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = copy.deepcopy(NET).double()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


class Sparse(Around):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Parameter(torch.eye(10).to_sparse(), requires_grad=False)
        self.after = lambda z: torch.sparse.mm(self.last, z.T).T


class Recurrent(Around):
    """Keeps its last state, with its graph, as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None
        self.read = nn.RNN(8, 8, batch_first=True, nonlinearity="relu")
        weights = {"weight_ih_l0": torch.eye(8), "weight_hh_l0": torch.zeros(8, 8)}
        biases = {"bias_ih_l0": torch.ones(8), "bias_hh_l0": torch.zeros(8)}
        self.read.load_state_dict(weights | biases)  # relu(x + 1), which is never at its kink
        self.before = self.rows

    def rows(self, x: Tensor) -> Tensor:
        out: Tensor
        out, self.state = self.read(x.squeeze(1))
        return out.unsqueeze(1) - 1


def scripted() -> nn.Module:
    script: nn.Module = torch.jit.trace(NET, X)
    return script


def scripted_part() -> nn.Module:
    model = Around()
    model.net = torch.jit.script(model.net)
    return model


def bytes_last() -> nn.Module:
    return Around(lambda x: x.permute(0, 3, 1, 2) / 255)


ORDINARY: dict[str, tuple[Callable[[], nn.Module], ModelForm]] = {
    "in place": (lambda: Around(lambda x: x.sub_(0.3).div_(0.5).mul_(0.5).add_(0.3)), ModelForm()),
    "in place under no_grad": (lambda: Around(in_place_under_no_grad), ModelForm()),
    "in place by numpy": (lambda: Around(in_place_by_numpy), ModelForm()),
    "view after a convolution": (ViewAfterConvolution, ModelForm()),
    "squeeze": (lambda: Around(after=lambda z: z[:, :, None].squeeze()), ModelForm()),
    "float64": (InDoubles, ModelForm()),
    "sparse": (Sparse, ModelForm()),
    "recurrent": (Recurrent, ModelForm()),
    "scripted": (scripted, ModelForm()),
    "scripted part": (scripted_part, ModelForm()),
    "channels last, 0 to 255": (bytes_last, ModelForm(channels_last=True, pixel_max=255)),
    "data parallel": (lambda: nn.DataParallel(Around()).eval(), ModelForm()),
    "boxes and scores": (lambda: Around(after=lambda z: {"boxes": z[:, :4], "scores": z}), ModelForm()),
    "second of two": (lambda: Around(after=lambda z: (2 * z, z)), ModelForm(output="1")),
}


def attacked(target: Target) -> AttackResult:
    judge = Judge(target.model, Linf(0.15), target.draws, target.uses_torch_random)
    return run_attack(APGD(20, margin), target.model, X, Y, judge=judge)


@pytest.mark.parametrize("strict", [True, False], ids=["attack", "audit"])
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_give_the_figure_of_their_network(name: str, strict: bool) -> None:
    build, form = ORDINARY[name]
    given = X.clone()
    target = prepare_target(build(), DATA, ExecutionConfig(strict=strict, form=form))
    found = attacked(target)
    assert torch.equal(X, given)  # whatever the model writes into
    assert found.accuracy.value == 0.0
    assert found.verdict.feasible.all()
    assert found.gradients is not None
    assert (found.gradients.none, found.gradients.not_finite) == (0, 0)


@torch.no_grad()
def without_gradient(x: Tensor) -> Tensor:
    return x.clone()


NO_GRADIENT: dict[str, Callable[[Tensor], Tensor]] = {
    "no_grad": without_gradient,
    "numpy": lambda x: torch.from_numpy(x.detach().numpy().copy()),
    "zero": lambda x: (16 * x).round() / 16,
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_trial_counts_the_examples_that_have_no_gradient(name: str) -> None:
    found = attacked(prepare_target(Around(NO_GRADIENT[name]), DATA))
    right = int((NET(X).argmax(1) == Y).sum())
    assert found.gradients is not None
    assert (found.gradients.examples, found.gradients.none) == (right, right)


def test_a_trial_counts_the_examples_whose_gradient_is_not_a_number_and_goes_on_with_the_rest_of_it() -> None:
    def corner(x: Tensor) -> Tensor:  # NaN in one pixel, as 0 * inf
        left = (x[..., :1, :1] - x[..., :1, :1].detach()).sqrt() + x[..., :1, :1].detach()
        return torch.cat([torch.cat([left, x[..., :1, 1:]], 3), x[..., 1:, :]], 2)

    found = attacked(prepare_target(Around(corner), DATA))
    assert found.gradients is not None
    assert found.gradients.not_finite == found.gradients.examples > 0
    assert found.gradients.none == 0
    assert found.accuracy.value == 0.0  # 63 pixels are enough


def test_what_is_adapted_is_said() -> None:
    def notes(model: nn.Module) -> list[str]:
        return [note.where for note in prepare_target(model, DATA).setup_findings]

    assert notes(NET) == []
    assert notes(InDoubles()) == ["its weights are float64: images are given as float64"]
    (said,) = notes(Around(after=lambda z: {"boxes": z[:, :4], "scores": z}))
    assert said == "of {'boxes': (8, 4), 'scores': (8, 10)}, 'scores' is taken for the logits"


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "two that could be logits": (Around(after=lambda z: (z, 2 * z)), "name the logits with --output"),
    "a wrong name": (Around(after=lambda z: {"logits": z, "rejected": z[:, 0]}), "name it `reject`, if it refuses"),
    "one logit for ten classes": (Around(after=lambda z: z[:, 0]), "one logit an image is taken for class 1"),
}


def test_a_pair_of_logits_and_a_margin_is_said_to_refuse() -> None:
    target = prepare_target(Around(after=lambda z: (z, z[:, 0] - z[:, 1])), DATA, ExecutionConfig(strict=False))
    (note,) = target.setup_findings
    z = NET(X[:8])
    assert (note.kind, note.evidence) == (
        "refusals",
        {"clean images refused": float((z[:, 0] > z[:, 1]).double().mean())},
    )
    assert "--output 0" in note.remedy
    assert (
        attacked(
            prepare_target(Around(after=lambda z: (z, z[:, 0])), DATA, ExecutionConfig(form=ModelForm(output="0")))
        ).accuracy.value
        == 0
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_certain_is_refused_with_what_settles_it(name: str) -> None:
    model, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        prepare_target(model, DATA)


def test_channels_last_is_recognised_by_its_failure() -> None:
    class Last(Around):
        def forward(self, x: Tensor) -> object:
            assert x.shape[-1] == 1, "expected (B, H, W, 1)"
            return super().forward(x.permute(0, 3, 1, 2))

    with pytest.raises(ValueError, match=r"takes \(B, H, W, C\): give --layout nhwc"):
        prepare_target(Last(), DATA)


def test_layers_of_static_quantisation_are_not_taken_for_training() -> None:
    net = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Flatten(), nn.Linear(64, 10))
    net.append(torch.ao.quantization.DeQuantStub())
    net.eval().qconfig = torch.ao.quantization.get_default_qconfig("x86")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = torch.ao.quantization.prepare(net)
        prepared(X)
        model = torch.ao.quantization.convert(prepared)
        assert any(part.training for part in model.modules())
        assert prepare_target(model, DATA).setup_findings == ()
