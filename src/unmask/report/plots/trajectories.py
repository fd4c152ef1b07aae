"""The trajectories of attacks that a run kept: candidates, and the outputs of the model for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unmask.kinds import Access, Role
from unmask.report.plots.stored_tensors import Array, StoredTensors
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.worst_case import strongest

__all__ = ["REFUSED", "Trajectory", "by_strength", "trajectories"]

REFUSED = -1
"""The class of an image that a detector refused."""


@dataclass(frozen=True)
class Trajectory:
    """K frames of one attack on one example; the first is the image itself, the last the result of the attack."""

    attack: str
    role: Role
    index: int
    label: int
    step: Array  # (K,) candidates so far
    image: Array  # (K, C, H, W) in [0, 1]
    seen: Array | None  # (K, C, H, W) what the classifier sees of it, where the defense makes an image
    view: Array  # (K,) margin through the attack's view
    true: Array  # (K,) margin on the model
    predicted: Array  # (K,) class on the model, or REFUSED

    @property
    def falls(self) -> bool:
        """Whether the attack is there at the last frame."""
        return bool(self.wrong[-1])

    @property
    def wrong(self) -> Array:
        """(K,) whether the model takes a frame for another class, and does not refuse it."""
        wrong: Array = (self.predicted != self.label) & (self.predicted != REFUSED)
        return wrong


def trajectories(run: RunFolder, case: CaseInfo, role: Role) -> list[Trajectory]:
    """The trajectories that the strongest attack of a role kept; none where the run kept none.

    Only attacks that have the whole model count, where there are any. Raises UnmaskError where a file of examples
    is broken.
    """
    return next((found for found in by_strength(run, case, role) if found), [])


def by_strength(run: RunFolder, case: CaseInfo, role: Role) -> Iterator[list[Trajectory]]:
    """The trajectories that each attack of a role kept, the strongest attack first."""
    kept = StoredTensors(run)
    attacks = by_attack(run.of(case, role))
    whole = {
        name: found for name, found in attacks.items() if case.access.get(name, Access.WHITE_BOX) == Access.WHITE_BOX
    }
    for verdicts in strongest((whole or attacks).values()):
        records = {found.record.job.key: found.record for found in verdicts.values()}
        labels = {index: found.example.label for index, found in verdicts.items()}
        yield [
            one
            for record in records.values()
            for one in _from_tensors(dict(kept.all(record)), record.job.attack, role, labels)
        ]


def _from_tensors(tensors: dict[str, Array], attack: str, role: Role, labels: dict[int, int]) -> Iterator[Trajectory]:
    if "way_index" not in tensors:
        return
    frames = {name.removeprefix("way_"): tensor for name, tensor in tensors.items() if name.startswith("way_")}
    of = frames.pop("index")
    for index in dict.fromkeys(of.tolist()):
        mine = {name: tensor[of == index] for name, tensor in frames.items()}
        yield Trajectory(attack, role, index, labels[index], **{"seen": None, **mine})
