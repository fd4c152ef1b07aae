"""Code outside of torch: what an audit finds of it, and the views that pass it, each on digits with a known truth."""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from unmask.auditing.diagnose import check_model, diagnose
from unmask.auditing.pilot import Pilot, pilot_views
from unmask.auditing.probe_data import Images
from unmask.auditing.request import AuditRequest
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.fitted_views import fitted_views
from unmask.auditing.views.pilot_result import PilotResult
from unmask.auditing.views.view_selection import PilotSearch
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target, prepare_target
from unmask.gradients.straight_through import straight_through
from unmask.report.verdict.finding_sentences import effect
from unmask.threats import Linf
from unmask.types import Output

DATA = load("digits", n=48)


@cache
def network() -> nn.Module:
    """The undefended network of the digits, which keeps 0 % at Linf 0.15."""
    return find_case("plain-digits").load().eval()


class Encoded(nn.Module):
    """Shows the network images that numpy has rounded, from a code of four planes that a fixed layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Conv2d(4, 1, 1, bias=False)
        self.read.weight.data.fill_(0.25)
        self.net = nn.Sequential(self.read, network())

    def forward(self, x: Tensor) -> Tensor:
        grey = x.detach().numpy()
        planes = np.concatenate([grey > level for level in (0.125, 0.375, 0.625, 0.875)], 1).astype(np.float32)
        answer: Tensor = self.net(torch.from_numpy(planes))
        return answer


class Kept(nn.Module):
    """Keeps the largest features, in numpy, between two halves of the network."""

    def __init__(self) -> None:
        super().__init__()
        parts = list(network().children())
        half = next(i for i, part in enumerate(parts) if isinstance(part, nn.Flatten))
        self.features, self.head = nn.Sequential(*parts[:half]), nn.Sequential(*parts[half:])

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x).detach().cpu().numpy()
        least = np.quantile(h, 0.5, axis=(1, 2, 3), keepdims=True)
        answer: Tensor = self.head(torch.from_numpy(np.where(h > least, h, 0)))
        return answer


class Nearest(nn.Module):
    """Answers with the class of the nearest mean of features, in numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(network().children())[:-1])
        x, y = load("digits", "train").batch()
        with torch.no_grad():
            known = self.features(x)
        self.means = torch.stack([known[y == k].mean(0) for k in range(10)]).numpy()

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x).detach().numpy()
        far = np.square(h[:, None] - self.means[None]).sum(2)
        return torch.from_numpy(np.eye(10, dtype=np.float32)[far.argmin(1)])


class Distances(nn.Module):
    """What :class:`Nearest` computes in numpy, in torch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.means = model, torch.from_numpy(Nearest().means)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.model.get_submodule("features")(x)
        return -(h[:, None] - self.means).square().sum(2)


class Crops(nn.Module):
    """Three copies of each image, rounded in numpy; the mean of what the network answers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.copies, self.net = RoundedCopies(), network()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(self.copies(x)).view(3, len(x), -1).mean(0)
        return answer


class RoundedCopies(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grey = x.detach().numpy()
        return torch.from_numpy(np.concatenate([np.round(grey * k) / k for k in (3, 4, 5)]).astype(np.float32))


class Votes(nn.Module):
    """Three networks, of weights with some noise, whose answers numpy counts."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.nets = nn.ModuleList(copy.deepcopy(network()) for _ in range(3))
        for weight in self.nets.parameters():
            spread = weight.detach().abs().mean()
            weight.data += 0.3 * spread * torch.randn(weight.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        answers = np.stack([net(x).detach().numpy().argmax(1) for net in self.nets])
        return torch.from_numpy(np.stack([(answers == k).sum(0) for k in range(10)], 1)).float()


class Counted(nn.Module):
    """The same votes, counted in torch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.nets = model.get_submodule("nets")

    def forward(self, x: Tensor) -> Tensor:
        votes = [nn.functional.one_hot(net(x).argmax(1), 10) for net in self.nets.children()]
        return torch.stack(votes).sum(0).float()


def piloted(model: nn.Module) -> Pilot:
    target = prepare_target(model.eval(), DATA, ExecutionConfig(strict=False))
    return pilot_views(diagnose(check_model(AuditRequest("net", target, DATA, Linf(0.15), 48, budget="quick"))))


def test_an_encoder_in_numpy_is_passed_by_a_surrogate_from_the_images() -> None:
    pilot = piloted(Encoded())
    assert pilot.results[0].robust_accuracy <= 0.1
    found, check = pilot.diagnosis, pilot.diagnosis.check
    views = fitted_views(check.model, found.probe, check.images.x, found.classes)
    search = PilotSearch(check.request.target, check.request.threat, check.images.first(32), 0)
    (fitted,) = [one for one in search(views) if "fit_skip" in one.name]
    assert fitted.robust_accuracy <= 0.1
    assert [str(one.kind) for one in pilot.diagnosis.findings] == ["shattered"]


def test_code_between_two_parts_is_passed_from_the_last_features_that_gradients_reach() -> None:
    pilot = piloted(Kept())
    best, own = pilot.results[0], next(one for one in pilot.results if one.view == OWN_GRADIENT)
    assert (best.robust_accuracy, own.robust_accuracy) == (0.0, 1.0)
    assert 'source="features"' in best.name
    (found,) = pilot.diagnosis.findings
    assert "h = self.features(x).detach().cpu().numpy()" in found.where
    assert found.remedy == f"{best.name} (leaves 0 %, the own gradient 100 %)"


def test_votes_in_numpy_are_passed_by_a_head_that_is_fitted_to_the_answers() -> None:
    """They leave about what a search of the distances in torch leaves."""
    pilot = piloted(Nearest())
    check = pilot.diagnosis.check
    search = PilotSearch(check.request.target, check.request.threat, check.images.first(32), 0)
    (truth,) = search([CandidateView(("distances",), Distances)])
    assert truth.robust_accuracy < 0.2
    assert pilot.results[0].robust_accuracy <= truth.robust_accuracy + 0.1
    assert pilot.results[0].name.startswith('submodule_output("features", unmask.fit_head(model, "features", x')


def test_votes_of_networks_that_numpy_counts_are_replaced_by_probabilities() -> None:
    """They leave about what straight-through estimation leaves of votes in torch."""
    pilot = piloted(Votes())
    check = pilot.diagnosis.check
    search = PilotSearch(check.request.target, check.request.threat, check.images.first(32), 0)
    (truth,) = search([CandidateView(("counted",), lambda model: straight_through(Counted(model)))])
    assert truth.robust_accuracy < 0.5
    assert pilot.results[0].robust_accuracy <= truth.robust_accuracy + 0.05
    names = [one.name for one in pilot.results]
    heads = [
        f'submodule_output(["nets.0", "nets.1", "nets.2"], unmask.{name}_votes(10))' for name in ("soft", "median")
    ]
    assert names[0] in heads
    assert {*heads} <= {*names}


def test_copies_of_a_batch_are_averaged_by_every_view() -> None:
    pilot = piloted(Crops())
    assert pilot.results[0].robust_accuracy <= 0.1
    tried = {one.name: one for one in pilot.results}
    assert tried['bpda("copies")'].robust_accuracy <= 0.1
    assert not tried['skip_to("net")'].error
    assert not tried['submodule_output("net")'].error
    (found,) = pilot.diagnosis.findings
    assert found.module == "copies"


def test_views_with_the_same_gradient_are_searched_once() -> None:
    searched: list[str] = []

    class Counted(PilotSearch):
        def _try(self, images: Images, candidate: CandidateView, levels: int) -> PilotResult:
            searched.append(candidate.name)
            return super()._try(images, candidate, levels)

    check = check_model(AuditRequest("net", Target(network()), DATA, Linf(0.15), 48))
    search = Counted(check.request.target, check.request.threat, check.images.first(32), 0)
    twice = CandidateView(("twice",), lambda model: Doubled(model))
    views = [OWN_GRADIENT, CandidateView(("straight_through",), straight_through), twice]
    one, same, other = search(views)
    assert searched == ["own gradient", "twice"]
    assert (one.robust_accuracy, one.margin) == (same.robust_accuracy, same.margin)
    assert same.view == views[1]
    assert other.view == twice


class Doubled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model((2 * x).clamp(0, 1))
        return answer


class BehindOneGap(Votes):
    """The same networks, all given images that numpy has rounded."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        z = torch.from_numpy(np.rint(4 * x.numpy()) / 4)
        answers = np.stack([net(z).numpy().argmax(1) for net in self.nets])
        return torch.from_numpy(np.stack([(answers == k).sum(0) for k in range(10)], 1)).float()


def test_networks_behind_the_same_gap_are_all_reached() -> None:
    (best, *_) = piloted(BehindOneGap()).results
    assert best.view.code[0] == 'skip_to(["nets.0", "nets.1", "nets.2"])'
    assert best.robust_accuracy <= 0.1


class Outside(nn.Module):
    """Features without gradients, and a classifier of scikit-learn behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(network().children())[:-1])
        x, y = load("digits", "train", n=600).batch()
        with torch.no_grad():
            self.neighbours = KNeighborsClassifier(5).fit(self.features(x).flatten(1).numpy(), y.numpy())

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            found = self.features(x).flatten(1)
        return torch.from_numpy(self.neighbours.predict_proba(found.numpy())).float()


def test_a_classifier_behind_features_without_gradients_is_fitted_by_a_head() -> None:
    (best, *_) = piloted(Outside()).results
    assert best.view.code[0] == "straight_through"
    assert "unmask.fit_head(unmask.straight_through(model)" in best.name
    assert best.robust_accuracy <= 0.2


class Reflected(nn.Module):
    """The classes of a network, with a lead that falls where the network's rises, between jumps: a sawtooth of it.

    Its gradient is correct almost everywhere, and leads away from other classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        top = z.topk(2, 1)
        lead = top.values[:, 0] - top.values[:, 1]
        shown = 3 * (lead / 3).floor() + 3 - 0.8 * lead.remainder(3)
        return z.scatter_add(1, top.indices[:, :1], (shown - lead)[:, None])


def test_a_correct_gradient_that_leads_nowhere_is_a_finding() -> None:
    pilot = piloted(Reflected())
    own = next(one for one in pilot.results if one.name == "own gradient")
    assert own.robust_accuracy >= 0.5
    assert pilot.results[0].robust_accuracy <= 0.1
    (found,) = pilot.diagnosis.findings
    assert (found.kind, found.evidence["gradient"]) == ("shattered", "misleading")
    assert pilot.results[0].name in found.where
    assert pilot.results[0].name in found.remedy
    assert "does not lead to images that are misclassified" in effect(asdict(found))


def test_a_network_by_itself_has_no_such_finding() -> None:
    assert not piloted(network()).diagnosis.findings


class Energies(nn.Module):
    """The energy of each class is that of the network's logit, asked class by class; numpy takes the least."""

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor, k: int) -> Tensor:
            energy: Tensor = -self.net(x)[:, k]
            return energy

    def __init__(self) -> None:
        super().__init__()
        self.energy = self.Energy()

    def forward(self, x: Tensor) -> Tensor:
        energies = np.stack([self.energy(x, k).detach().numpy() for k in range(10)], 1)
        return nn.functional.one_hot(torch.from_numpy(energies.argmin(1)), 10).float()


def test_energies_of_classes_one_by_one_are_logits() -> None:
    left = {one.name: one.robust_accuracy for one in piloted(Energies()).results}
    assert left['submodule_output("energy", torch.neg)'] <= 0.1
    assert left['submodule_output("energy")'] == left["own gradient"] == 1


class Exits(nn.Module):
    """Two networks, the second for images of which the first is unsure, one image at a time; numbers of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = network(), copy.deepcopy(network())

    def forward(self, x: Tensor) -> Tensor:
        answers = []
        for image in x.split(1):
            z = self.first(image)
            z = z if z.softmax(1).max() > 0.9 else self.second(image)
            answers.append(z[0].tolist())
        return torch.tensor(answers)


def test_logits_are_read_from_a_part_that_gets_all_images() -> None:
    pilot = piloted(Exits())
    tried = [one for one in pilot.results if "submodule_output" in one.name]
    assert tried[0].name == 'submodule_output("first")'
    assert tried[0].robust_accuracy < 0.5


class Functional(nn.Module):
    """The reflected lead of a network that is written with functions: no part gives logits."""

    def __init__(self) -> None:
        super().__init__()
        *features, last = network().children()
        assert isinstance(last, nn.Linear)
        self.features, self.weight, self.bias = nn.Sequential(*features), last.weight, last.bias

    def forward(self, x: Tensor) -> Tensor:
        z = nn.functional.linear(self.features(x), self.weight, self.bias)
        top = z.topk(2, 1)
        lead = top.values[:, 0] - top.values[:, 1]
        shown = 3 * (lead / 3).floor() + 3 - 0.8 * lead.remainder(3)
        return z.scatter_add(1, top.indices[:, :1], (shown - lead)[:, None])


def test_logits_are_read_from_functions_where_no_part_gives_them() -> None:
    pilot = piloted(Functional())
    assert pilot.results[0].name == "linear_output(10)"
    assert pilot.results[0].robust_accuracy <= 0.1
    (found,) = pilot.diagnosis.findings
    assert found.evidence["gradient"] == "misleading"


class Second(nn.Module):
    """A second network of the digits: a linear map of their squares."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read = nn.Linear(64, 10)
        x, y = load("digits", "train").batch()
        optimizer = torch.optim.Adam(self.read.parameters(), 0.02)
        for _ in range(200):
            loss = nn.functional.cross_entropy(self(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.read((x * x).flatten(1))
        return answer


class Agreeing(nn.Module):
    """Refuses, in numpy, the images on which two networks disagree."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = network(), Second()

    def forward(self, x: Tensor) -> Output:
        answer = self.one(x)
        with torch.no_grad():
            other = self.other(x).numpy()
        return Output(answer, torch.from_numpy(other.argmax(1) != answer.detach().numpy().argmax(1)))


def test_networks_that_must_agree_are_moved_to_one_class() -> None:
    pilot = piloted(Agreeing())
    best, own = pilot.results[0], next(one for one in pilot.results if one.view == OWN_GRADIENT)
    assert best.name == 'straight_through, agreement(["one", "other"])'
    assert best.robust_accuracy < own.robust_accuracy - 0.3
    places = [one.where.partition(" ")[2] for one in pilot.diagnosis.findings]
    assert places[0] == "other = self.other(x).numpy()"
    assert "answer.detach().numpy().argmax(1)" in places[1]


class Committee:
    """Networks that are no parts of a model."""

    def __init__(self) -> None:
        self.members = [Second()]

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        labels: Tensor = self.members[0](x).argmax(1)
        return labels


class Listed(nn.Module):
    """As :class:`Agreeing`, with the second network in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.committee = network(), Committee()

    def forward(self, x: Tensor) -> Output:
        answer = self.one(x)
        return Output(answer, torch.from_numpy(self.committee.labels(x).numpy() != answer.detach().numpy().argmax(1)))


class Looped(Agreeing):
    """As :class:`Agreeing`, with the second network asked for one image at a time."""

    def forward(self, x: Tensor) -> Output:
        answer = self.one(x)
        with torch.no_grad():
            others = [self.other(image[None]).argmax(1).item() for image in x]
        return Output(answer, torch.tensor([a != b for a, b in zip(others, answer.argmax(1).tolist(), strict=True)]))


@pytest.mark.parametrize(
    ("model", "view"),
    [(Listed, "straight_through, linear_agreement(10)"), (Looped, 'straight_through, agreement(["one", "other"])')],
)
def test_networks_that_must_agree_are_found_in_lists_and_loops(model: type[nn.Module], view: str) -> None:
    pilot = piloted(model())
    best, own = pilot.results[0], next(one for one in pilot.results if one.view == OWN_GRADIENT)
    assert best.name == view
    assert best.robust_accuracy < own.robust_accuracy - 0.3
    assert pilot.diagnosis.findings
    assert not best.plain()["refusal_gradient"], "the model's refusal itself has none"


class SecondOpinion(nn.Module):
    """Refuses where a classifier of another library sees another class."""

    def __init__(self) -> None:
        super().__init__()
        x, y = load("digits", "train").batch()
        self.net, self.other = network(), KNeighborsClassifier(3).fit(x.flatten(1).numpy(), y.numpy())

    def forward(self, x: Tensor) -> Output:
        answer = self.net(x)
        other = self.other.predict(x.detach().flatten(1).numpy())
        return Output(answer, torch.from_numpy(other != answer.detach().numpy().argmax(1)))


def test_a_refusal_that_saves_images_is_a_finding_even_where_no_view_leaves_less() -> None:
    pilot = piloted(SecondOpinion())
    assert any("self.other.predict" in one.where or "answer.detach()" in one.where for one in pilot.diagnosis.findings)
    assert not any(one.plain()["refusal_gradient"] for one in pilot.results)


class Unconverted(Agreeing):
    """As :class:`Agreeing`, with a refusal that stays an array of numpy."""

    def forward(self, x: Tensor) -> Output:
        answer = super().forward(x)
        assert answer.reject is not None
        return answer._replace(reject=answer.reject.numpy())  # type: ignore[arg-type]


def test_a_refusal_that_stays_an_array_counts_as_one_of_torch() -> None:
    one, other = piloted(Unconverted()), piloted(Agreeing())
    assert [(r.name, r.robust_accuracy) for r in one.results] == [(r.name, r.robust_accuracy) for r in other.results]
    assert one.diagnosis.findings
