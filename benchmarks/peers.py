"""PGD, APGD, EOT-PGD and Square beside Foolbox, torchattacks and ART: the same network, images, ball and gradients.

    python -m benchmarks.peers [--images 256] [--rounds 7] [--attack PGD ...]

Whole attacks are timed as each library offers them, ours with screening, early stopping and the judge's verdict.
What all of them find is judged alike, in float32 on the network itself. EOT-PGD is aimed at the network behind noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.peer_attacks import PEERS, Budget, installed
from benchmarks.subjects import Subject, arguments, ratio, subjects, timed
from unmask.attacks.apgd import APGD
from unmask.attacks.problem import Attack
from unmask.attacks.settings import pgd
from unmask.attacks.square import Square
from unmask.gradients.eot import EOT
from unmask.judging import Judge
from unmask.randomness import stream
from unmask.trials import trial

__all__ = ["main"]

STEPS = {"PGD": 40, "APGD": 40, "EOT-PGD": 20, "Square": 500}
DRAWS = 10  # of EOT-PGD


class Noisy(nn.Module):
    """A network behind noise: the random model."""

    def __init__(self, net: nn.Module, sigma: float = 0.1) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x + self.sigma * torch.randn_like(x))
        return logits


def main() -> None:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--attack", nargs="+", choices=list(PEERS), default=list(PEERS))
    options = parser.parse_args()
    for subject in subjects(options):
        for attack in options.attack:
            compare(subject, attack, options.rounds)


def compare(subject: Subject, attack: str, rounds: int) -> None:
    """One attack, ours and everybody's: seconds, ours over theirs, and the accuracy that each leaves."""
    x, y = subject.batch
    random = attack == "EOT-PGD"
    model = (Noisy(subject.model) if random else subject.model).eval()
    judge, steps = Judge(model, subject.threat), STEPS[attack]
    size = 2.5 / steps
    budget = Budget(subject.threat.eps, steps, size * subject.threat.eps, DRAWS if random else 1)
    own: dict[str, Attack] = {
        "PGD": pgd(steps, size=size),
        "APGD": APGD(steps),
        "EOT-PGD": pgd(steps, estimator=EOT(DRAWS), size=size),
        "Square": Square(steps),
    }
    theirs = {name: partial(peer(model, budget, len(x)), x, y) for name, peer in installed(attack).items()}
    attacks: dict[str, Callable[[], Tensor]] = {
        "unmask": lambda: trial(judge, model, own[attack], x, y).x_adv,
        **theirs,
    }
    times = timed(attacks, rounds)
    print(f"{subject.name}: {attack}-{steps}{f' of {DRAWS} draws' if random else ''} on {len(x)} images")
    for name, run in attacks.items():
        x_adv = subject.threat.project(run(), x)
        robust = judge.verdict(x_adv, x, y, stream(0, torch.arange(len(x)), "score")).robust.mean()
        beside = "" if name == "unmask" else f"unmask takes {ratio(times, 'unmask', name):.2f} of it"
        print(f"  {name:14}{median(times[name]):8.3f} s {robust:9.2%} robust  {beside}")
    if missing := PEERS[attack].keys() - theirs.keys():
        print(f"  not installed: {', '.join(sorted(missing))}")
    print(flush=True)


if __name__ == "__main__":
    main()
