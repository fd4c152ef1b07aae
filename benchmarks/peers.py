"""PGD, APGD, EOT-PGD and Square beside Foolbox, torchattacks and ART: the same network, images, ball and gradients.

    python -m benchmarks.peers [--images 256] [--rounds 7] [--attack PGD ...] [--compile]

Whole attacks are timed as each library offers them, ours with screening, early stopping and the judge's verdict.
What all of them find is judged alike, in float32 on the network itself. EOT-PGD is aimed at the network behind noise,
and an example leaves ours once it is wrong in each of sixteen draws. *Bare passes* are as many forward and backward
passes of the network as the attack asks for at most, with nothing around them: no attack that goes on to the end on
everything can be much faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peer_attacks import PEERS, Budget, installed
from benchmarks.subjects import Subject, arguments, ratio, subjects, timed
from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.square import Square
from unmask.attacks.problem import Attack
from unmask.gradients.eot import EOT
from unmask.judging import Judge
from unmask.losses import cross_entropy, with_confidence
from unmask.models.compiling import Compiler
from unmask.randomness import make_keys

__all__ = ["main"]

STEPS = {"PGD": 40, "APGD": 40, "EOT-PGD": 20, "Square": 500}
DRAWS = 10  # of EOT-PGD
VERDICT = 16  # draws by which a random model is judged
SPARE = 3.0  # loss beyond the boundary from which the judge is asked about a random model


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
    parser.add_argument(
        "--compile", action="store_true", help="ours with torch.compile, compiled before the clock starts"
    )
    options = parser.parse_args()
    for subject in subjects(options):
        for attack in options.attack:
            compare(subject, attack, options.rounds, Compiler() if options.compile else None)


def compare(subject: Subject, attack: str, rounds: int, compiler: Compiler | None) -> None:
    """One attack, ours and everybody's: seconds, ours over theirs, and the accuracy that each leaves."""
    x, y = subject.batch
    random = attack == "EOT-PGD"
    model = (Noisy(subject.model) if random else subject.model).eval()
    judge, steps = Judge(model, subject.threat, VERDICT if random else 1, random), STEPS[attack]
    size = 2.5 / steps
    budget = Budget(subject.threat.eps, steps, size * subject.threat.eps, DRAWS if random else 1, x.shape[1:], len(x))
    own: dict[str, Attack] = {
        "PGD": pgd(steps, rel_step_size=size),
        "APGD": APGD(steps),
        "EOT-PGD": pgd(steps, with_confidence(cross_entropy, SPARE), EOT(DRAWS), rel_step_size=size),
        "Square": Square(steps),
    }
    theirs = {name: partial(peer(model, budget), x, y) for name, peer in installed(attack).items()}
    attacks: dict[str, Callable[[], Tensor]] = {
        "unmask": lambda: run_attack(own[attack], model, x, y, judge=judge, compiler=compiler).x_adv,
        **theirs,
    }
    times = timed(
        {**attacks, "bare passes": lambda: bare(model, subject, steps * budget.draws, attack != "Square")}, rounds
    )
    print(f"{subject.name}: {attack}-{steps}{f' of {DRAWS} draws' if random else ''} on {len(x)} images")
    for name, run in attacks.items():
        x_adv = subject.threat.project(run(), x)
        robust = judge.verdict(x_adv, x, y, make_keys(0, torch.arange(len(x)), "score")).robust_fraction.mean()
        beside = "" if name == "unmask" else f"unmask takes {ratio(times, 'unmask', name):.2f} of it"
        print(f"  {name:14}{median(times[name]):8.3f} s {robust:9.2%} robust  {beside}")
    least = ratio(times, "unmask", "bare passes")
    print(f"  {'bare passes':14}{median(times['bare passes']):8.3f} s {'':9}         unmask takes {least:.2f} of it")
    judge.passes.forwards = 0
    own_passes = run_attack(own[attack], model, x, y, judge=judge).passes
    print(
        f"  images through the network: {own_passes.forwards} forward and {own_passes.backwards} backward for the "
        f"attack, {judge.passes.forwards} forward for the judge"
    )
    if missing := PEERS[attack].keys() - theirs.keys():
        print(f"  not installed: {', '.join(sorted(missing))}")
    print(flush=True)


def bare(model: nn.Module, subject: Subject, count: int, backward: bool) -> None:
    """So many passes, and nothing else."""
    x, y = subject.batch
    for _ in range(count):
        z = x.detach().requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            value = F.cross_entropy(model(z), y, reduction="sum")
        if backward:
            torch.autograd.grad(value, z)


if __name__ == "__main__":
    main()
