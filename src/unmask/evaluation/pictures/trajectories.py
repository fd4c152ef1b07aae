"""The losses of the candidates of a trajectory, on the model and through the attack's view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unmask.attacks.trajectory import TrajectoryRecorder
from unmask.evaluation.models.targets import Target
from unmask.losses import margin
from unmask.models.model_wrappers import batch_invariant
from unmask.randomness import Keys, make_keys, use_keys
from unmask.types import Model, Output, as_output

__all__ = ["REFUSED", "trajectory_tensors"]

REFUSED = -1
"""The class of an image that a detector refuses."""


@torch.no_grad()
def trajectory_tensors(
    target: Target, trail: TrajectoryRecorder, index: Tensor, x: Tensor, y: Tensor, x_adv: Tensor, seed: int
) -> Iterator[dict[str, Tensor]]:
    """For each example of a trail its K frames: the image itself, the recorded candidates, and the result.

    Names: ``way_index`` (K,) the example's position in the data set; ``way_step`` (K,) candidates so far;
    ``way_image`` (K, C, H, W) and, where the target has an image probe, ``way_seen`` behind it, both in half
    precision; ``way_view`` and ``way_true`` (K,) the margin on the view and on the model;
    ``way_predicted`` (K,) the model's class, or :data:`REFUSED`. All frames of an example meet the same draw
    of the model's randomness. No pass is counted.

    Args:
        target: the model that was attacked.
        trail: of a batch, by the numbers of its rows.
        index: positions (B,) of the batch, and its images (B, C, H, W), classes (B,) and adversarial images.
        seed: of the job.
    """
    for row in trail.rows:
        stops = trail.of(row)
        images = [x[row], *(stop.x_adv.to(x.device) for stop in stops)]
        steps = [0, *(stop.step for stop in stops)]
        views: list[Model] = [stop.view for stop in stops]
        if not torch.equal(images[-1], x_adv[row]):
            images.append(x_adv[row])
            steps.append(steps[-1])
            views += views[-1:]
        frames = torch.stack(images)
        labels = y[row].expand(len(frames))
        keys = make_keys(seed, index[row].expand(len(frames)), "way")
        with use_keys(keys), _looking(target) as looked:
            answer = batch_invariant(target.model, uses_torch_random=target.uses_torch_random)(frames)
        predicted = answer.logits.argmax(1)
        if answer.reject is not None:
            predicted = torch.where(answer.reject > 0, REFUSED, predicted)
        true = margin(answer, labels)
        tensors = {
            "way_index": index[row].expand(len(frames)),
            "way_step": torch.tensor(steps),
            "way_image": frames.half(),
            "way_view": _through([*views[:1], *views], frames, labels, keys) if views else true,
            "way_true": true,
            "way_predicted": predicted,
        }
        if looked:
            tensors["way_seen"] = looked[-1][: len(frames)].half()
        yield {name: value.cpu() for name, value in tensors.items()}


def _through(views: list[Model], frames: Tensor, labels: Tensor, keys: Keys) -> Tensor:
    """The margin (K,) of each frame on its view; frames of one view go through it together."""
    values = frames.new_empty(len(frames))
    for view in {id(view): view for view in views}.values():
        mine = torch.tensor([other is view for other in views], device=frames.device)
        with use_keys(keys.select(mine)):
            answer: Output = as_output(view(frames[mine]))
        values[mine] = margin(answer, labels[mine]).float()
    return values


@contextmanager
def _looking(target: Target) -> Iterator[list[Tensor]]:
    """The output of the part that the image probe names."""
    looked: list[Tensor] = []
    if target.image_probe is None:
        yield looked
        return

    def look(module: nn.Module, given: object, made: Tensor) -> None:
        looked.append(made)

    hook = target.model.get_submodule(target.image_probe.part).register_forward_hook(look)
    try:
        yield looked
    finally:
        hook.remove()
