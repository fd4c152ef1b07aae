"""Class ids that models move through tables, sorts and writes keep how much each class is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.gradients.straight_through import straight_through
from unmask.gradients.straight_through.places import order

Function = Callable[[Tensor], Tensor]
BACK = torch.tensor([[3, 0, 4, 1, 2], [1, 4, 0, 2, 3]])  # (voters, classes): the class that each id stands for
VOTERS = torch.arange(2)


class Inline(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def scores() -> Tensor:
    """(B, voters, classes)."""
    return torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(3))


def answer_and_slopes(function: Function, z: Tensor) -> tuple[Tensor, Tensor]:
    """What the view of the model answers (B, K), and the gradient of each class (K, *z.shape)."""
    z = z.clone().requires_grad_()
    answer = straight_through(Inline(function))(z)
    slopes = [torch.autograd.grad(answer[:, k].sum(), z, retain_graph=True)[0] for k in range(answer.shape[1])]
    return answer, torch.stack(slopes)


def counted(ids: Tensor) -> Tensor:
    return F.one_hot(ids, 5).sum(1).float()


def smooth(z: Tensor) -> Tensor:
    """How much each class is meant by the votes: softmax, in the order of the classes."""
    return sum(part.softmax(1)[:, back.argsort()] for part, back in zip(z.unbind(1), BACK, strict=True))  # type: ignore[return-value]


def assert_like(function: Function, wanted: Function, z: Tensor) -> None:
    """The answer is the model's to the bit; each class has the gradient of the smooth function."""
    answer, found = answer_and_slopes(function, z)
    assert torch.equal(answer, function(z))
    leaf = z.clone().requires_grad_()
    smooth_answer = wanted(leaf)
    for k in range(answer.shape[1]):
        (slope,) = torch.autograd.grad(smooth_answer[:, k].sum(), leaf, retain_graph=True)
        torch.testing.assert_close(found[k], slope)


def each_voter(look: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda z: counted(
        torch.stack([look(b, part.argmax(1)) for b, part in zip(BACK, z.unbind(1), strict=True)], 1)
    )


READS: dict[str, Function] = {
    "index": each_voter(lambda table, label: table[label]),
    "gather": each_voter(lambda table, label: table.gather(0, label)),
    "take": each_voter(torch.take),
    "index_select": each_voter(lambda table, label: table.index_select(0, label)),
    "take_along_dim": each_voter(lambda table, label: torch.take_along_dim(table, label, 0)),
    "two indices": lambda z: counted(BACK[VOTERS, z.argmax(2)]),
    "a place in a row": lambda z: counted(torch.stack([BACK[0, z[:, 0].argmax(1)], BACK[1, z[:, 1].argmax(1)]], 1)),
    "gather along rows": lambda z: counted(BACK.gather(1, z.argmax(2).T).T),
    "rows that broadcast": lambda z: counted(torch.take_along_dim(BACK[None], z.argmax(2)[..., None], 2)[..., 0]),
    "slice and index": lambda z: counted(
        torch.stack([BACK[:, z[:, 0].argmax(1)][0], BACK[..., z[:, 1].argmax(1)][1]], 1)
    ),
}


@pytest.mark.parametrize("read", READS)
def test_votes_moved_through_permutations_have_the_gradient_of_permuted_scores(read: str) -> None:
    assert_like(READS[read], smooth, scores())


def placed_by_loops(z: Tensor) -> Tensor:
    votes = torch.zeros(len(z), 5)
    for i, row in enumerate(z.argmax(2)):
        for label in row:
            votes[i, label] += 1
    return votes


def each_write(write: Callable[[Tensor, Tensor], object], dtype: torch.dtype = torch.float32) -> Function:
    def count(z: Tensor) -> Tensor:
        votes = torch.zeros(len(z), 5, dtype=dtype)
        for part in z.unbind(1):
            write(votes, part.argmax(1))
        return votes.float()

    return count


def add_item(votes: Tensor, label: Tensor) -> None:
    votes[torch.arange(len(votes)), label] += 1


WRITES: dict[str, Function] = {
    "+=": each_write(add_item),
    "+= of integers": each_write(add_item, torch.int64),
    "loops": placed_by_loops,
    "index_put_": each_write(
        lambda votes, label: votes.index_put_((torch.arange(len(votes)), label), torch.tensor(1.0), accumulate=True)
    ),
    "scatter_add_": each_write(lambda votes, label: votes.scatter_add_(1, label[:, None], torch.ones(len(votes), 1))),
    "scatter_reduce_": each_write(
        lambda votes, label: votes.scatter_reduce_(1, label[:, None], torch.ones(len(votes), 1), reduce="sum")
    ),
    "histc": lambda z: torch.stack([torch.histc(row.float(), 5, 0, 4) for row in z.argmax(2)]),
    "offsets and bincount": lambda z: (
        torch.bincount((z.argmax(2) + 5 * torch.arange(len(z))[:, None]).flatten(), minlength=5 * len(z))
        .view(-1, 5)
        .float()
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_votes_counted_by_writes_have_the_gradient_of_the_sum_of_their_weights(write: str) -> None:
    assert_like(WRITES[write], lambda z: z.softmax(2).sum(1), scores())


def marked(z: Tensor) -> Tensor:
    out = torch.zeros(len(z), 5)
    out[torch.arange(len(z)), z[:, 0].argmax(1)] = 3.0
    return out


LARGEST: dict[str, Function] = {
    "argsort": lambda z: F.one_hot(z[:, 0].argsort(1)[:, -1], 5).float(),
    "argsort from the largest": lambda z: torch.eye(5)[z[:, 0].argsort(dim=1, descending=True)[:, 0]],
    "sort": lambda z: torch.eye(5)[z[:, 0].sort(descending=True)[1][:, 0]],
    "equal to the largest": lambda z: (z[:, 0] == z[:, 0].max(1, keepdim=True)[0]).float(),
    "at least the largest": lambda z: (z[:, 0] >= z[:, 0].amax(1, keepdim=True)).float(),
    "less than the largest": lambda z: 1 - (z[:, 0] != z[:, 0].amax(1, keepdim=True)).float(),
    "a float": lambda z: torch.eye(5)[z[:, 0].argmax(1).float().round().long()],
    "floats that are equal": lambda z: (z[:, 0].argmax(1).float()[:, None] == torch.arange(5.0)).float(),
    "written": lambda z: marked(z) / 3,
    "there and back": lambda z: torch.eye(5)[(2 * z[:, 0].argmax(1) + 7 - 7) // 2],
    "xor": lambda z: torch.eye(5)[z[:, 0].argmax(1) ^ 9 ^ 9],
}


@pytest.mark.parametrize("idiom", LARGEST)
def test_a_label_in_another_spelling_has_the_gradient_of_softmax(idiom: str) -> None:
    assert_like(LARGEST[idiom], lambda z: z[:, 0].softmax(1), scores())


def test_a_code_of_two_labels_is_meant_as_much_as_both_are() -> None:
    def code(z: Tensor) -> Tensor:
        return F.one_hot(5 * z[:, 0].argmax(1) + z[:, 1].argmax(1), 25).float()

    assert_like(code, lambda z: (z[:, 0].softmax(1)[:, :, None] * z[:, 1].softmax(1)[:, None]).flatten(1), scores())


def test_a_bit_that_is_added_to_a_label_moves_its_weights_by_a_place() -> None:
    z = scores()
    answer, slopes = answer_and_slopes(lambda z: torch.eye(6)[z[:, 0].argmax(1) + (z[:, 1, 0] > 0).long()], z)
    assert torch.equal(answer, torch.eye(6)[z[:, 0].argmax(1) + (z[:, 1, 0] > 0).long()])
    meant = z[:, 0].softmax(1)
    moved = F.pad(meant, (1, 0)) - F.pad(meant, (0, 1))  # by the bit
    gap = slopes[:, :, 1, 0].T
    torch.testing.assert_close(gap / gap.norm(dim=1, keepdim=True), moved / moved.norm(dim=1, keepdim=True))


def test_votes_counted_by_unique_have_a_gradient_in_the_direction_of_their_weights() -> None:
    def count(z: Tensor) -> Tensor:
        votes = torch.zeros(len(z), 5)
        for i, row in enumerate(z.argmax(2)):
            values, counts = torch.unique(row, return_counts=True)
            votes[i, values] = counts.float()
        return votes

    z = scores()
    answer, found = answer_and_slopes(count, z)
    assert torch.equal(answer, count(z))
    _, wanted = answer_and_slopes(lambda z: counted(z.argmax(2)), z)
    chosen = answer.T[:, :, None, None] > 0  # a class that is voted for has the gradient of its count too
    torch.testing.assert_close(found, wanted * (1 + chosen.float()))


def test_each_place_of_an_order_is_meant_by_the_scores_near_it() -> None:
    z = 0.1 * scores()
    order = z[:, 0].argsort(dim=1, descending=True)
    for place in range(5):

        def at_place(z: Tensor, place: int = place) -> Tensor:
            return F.one_hot(z[:, 0].argsort(dim=1, descending=True)[:, place], 5).float()

        _, slopes = answer_and_slopes(at_place, z)
        own = slopes[:, :, 0].permute(1, 0, 2)  # (B, class, score)
        torch.testing.assert_close(own.sum(1), torch.zeros(6, 5), atol=1e-5, rtol=0)
        for row, labels in zip(own, order, strict=True):
            for above in labels[:place]:
                assert row[above, above] < 0  # one that is above moves away from the place as it rises
            for below in labels[place + 1 :]:
                assert row[below, below] > 0


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("cut", [np.s_[:, :3], np.s_[:, 0], np.s_[..., -2:], np.s_[:, -1], np.s_[:, ::2]])
def test_a_part_of_a_long_order_is_meant_as_it_is_in_a_short_one(
    down: bool, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(z: Tensor) -> Tensor:
        places = z[:, 0].argsort(dim=1, descending=down)[cut]
        return F.one_hot(places.reshape(len(z), -1), 5).sum(1).float()

    answer, wanted = answer_and_slopes(function, scores())
    monkeypatch.setattr(order, "_MOST_SORTED", 4)
    long, found = answer_and_slopes(function, scores())
    assert torch.equal(long, answer)
    assert wanted.any()
    torch.testing.assert_close(found, wanted)


def test_a_long_order_as_a_whole_takes_no_memory_for_pairs() -> None:
    z = torch.rand(2, 1, 20000, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def nearest(z: Tensor) -> Tensor:
        found = z[:, 0].argsort(dim=1)
        table = torch.arange(20000.0)[found]
        return torch.stack([F.one_hot(found[:, :3] % 5, 5).sum(1).float().sum(1), table[:, 0]], 1)

    assert torch.equal(straight_through(Inline(nearest))(z), nearest(z))


def test_the_rank_of_a_score_rises_with_it() -> None:
    _, slopes = answer_and_slopes(lambda z: z[:, 0].argsort(1).argsort(1).float(), scores())
    own = slopes[:, :, 0].diagonal(dim1=0, dim2=2)
    assert (own > 0).all()


def test_labels_scattered_by_a_mask_are_those_of_where() -> None:
    def scattered(z: Tensor) -> Tensor:
        a, b = z.argmax(2).unbind(1)
        return torch.eye(5)[a.masked_scatter(a > 1, b[a > 1])]

    def chosen(z: Tensor) -> Tensor:
        a, b = z.argmax(2).unbind(1)
        return torch.eye(5)[torch.where(a > 1, b, a)]

    z = scores()
    answer, found = answer_and_slopes(scattered, z)
    expected, slopes = answer_and_slopes(chosen, z)
    assert torch.equal(answer, expected)
    written = z.argmax(2)[:, 0] > 1
    assert 0 < written.sum() < len(z)
    torch.testing.assert_close(found[:, written], slopes[:, written])


CODES = torch.tensor([[0.0, 1, 1, 0, 1]])

BITS: dict[str, Function] = {
    "floats": lambda z: (torch.sign(z[:, 0]) == 2 * CODES - 1).float().sum(1, keepdim=True),
    "integers": lambda z: ((z[:, 0] > 0).long() == CODES.long()).float().sum(1, keepdim=True),
    "booleans": lambda z: ((z[:, 0] > 0) == CODES.bool()).float().sum(1, keepdim=True),
}


@pytest.mark.parametrize("bits", BITS)
def test_a_bit_that_is_equal_to_that_of_a_code_has_a_slope_towards_it(bits: str) -> None:
    z = scores()
    answer, found = answer_and_slopes(BITS[bits], z)
    assert torch.equal(answer, BITS[bits](z))
    assert torch.equal(found[0, :, 0].sign(), (2 * CODES - 1).expand(6, -1))


def test_the_number_of_bits_that_differ_has_a_gradient_where_they_are_equal_too() -> None:
    codes = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [1, 0, 0, 1, 1]])
    z = scores()[:, 0]
    bits = lambda z: F.one_hot(z.argmax(1), 5).float()  # noqa: E731
    answer, found = answer_and_slopes(lambda z: -torch.cdist(bits(z), codes, p=0), z)
    assert torch.equal(answer, -torch.cdist(bits(z), codes, p=0))
    leaf = z.clone().requires_grad_()
    for k, code in enumerate(codes):
        (slope,) = torch.autograd.grad((leaf.softmax(1) * (2 * code - 1)).sum(), leaf)
        torch.testing.assert_close(found[k], slope)


def majority(z: Tensor) -> Tensor:
    a, b = z.argmax(2).unbind(1)
    c = (z[:, 0] + z[:, 1]).argmax(1)
    return torch.eye(5)[((a == b) * a) | ((a == c) * a) | ((b == c) * c)]


EXAMPLES = READS | WRITES | {"majority": majority, "sure majority": lambda z: majority(z * scale_of_first(z))}


def scale_of_first(z: Tensor) -> Tensor:
    """Very sure of one example, whose voters agree."""
    return torch.where(z.argmax(2, keepdim=True)[:, :1] == z.argmax(2, keepdim=True)[:, 1:], 20.0, 1.0).detach()


@pytest.mark.parametrize("function", EXAMPLES.values(), ids=EXAMPLES)
def test_the_gradient_of_an_example_does_not_depend_on_others(function: Function) -> None:
    z = scores()
    together = answer_and_slopes(function, z)[1]
    for i in range(len(z)):
        torch.testing.assert_close(together[:, i : i + 1], answer_and_slopes(function, z[i : i + 1])[1])


def test_a_write_where_the_input_decides_nothing_but_the_place_leaves_the_rest_alone() -> None:
    """What was there before keeps its gradient, and a read that is not written back changes nothing."""

    def keep(z: Tensor) -> Tensor:
        out = z[:, 1] * 2
        row = out[torch.arange(len(z)), z[:, 0].argmax(1)]
        out[torch.arange(len(z)), z[:, 0].argmax(1)] = row + 1
        return out

    z = scores()
    answer, found = answer_and_slopes(keep, z)
    assert torch.equal(answer, keep(z))
    label = z[:, 0].argmax(1)
    for k in range(5):
        others = label != k
        torch.testing.assert_close(found[k][others][:, 1, k], torch.full((int(others.sum()),), 2.0))


def test_labels_that_are_written_among_floats_are_labels_there() -> None:
    def written(z: Tensor) -> Tensor:
        ids = torch.zeros(len(z), 2)
        ids[:, 0] = z[:, 0].argmax(1)
        ids[..., 1] = z[:, 1].argmax(1)
        return (ids[..., None] == torch.arange(5.0)).float().sum(1)

    assert_like(written, lambda z: z.softmax(2).sum(1), scores())


def test_what_is_read_in_one_tensor_and_written_in_another_is_no_increment() -> None:
    def copied(z: Tensor) -> Tensor:
        one, other = torch.arange(10.0).view(2, 5).unbind(0)
        index = z[0, 0].argmax()
        read = one[index]
        other = other.clone()
        other[index] = read
        return other[None]

    z = scores()[:1]
    answer, found = answer_and_slopes(copied, z)
    assert torch.equal(answer, copied(z))
    leaf = z[:, 0].clone().requires_grad_()
    weights = leaf.softmax(1)
    label = z[0, 0].argmax()
    for k in range(5):
        smooth_value = -5 * weights[0, k] + (k == label) * (weights * torch.arange(5.0)).sum()
        (slope,) = torch.autograd.grad(smooth_value, leaf, retain_graph=True)
        torch.testing.assert_close(found[k][:, 0], slope)


def test_scores_that_are_read_at_the_largest_places_keep_their_own_gradient() -> None:
    def gap(z: Tensor) -> Tensor:
        first, second = z[:, 0].gather(1, z[:, 0].topk(2).indices).unbind(1)
        return (first - second)[:, None]

    assert_like(gap, gap, scores())


@pytest.mark.parametrize("nearest", [lambda d: d.argsort(1)[:, :2], lambda d: d.topk(2, 1, largest=False).indices])
def test_counts_are_sorted_as_scores_are(nearest: Function) -> None:
    """Hamming distances to five codes of eight bits, summed as integers, have the gradient of floats."""
    codes = torch.rand(5, 8, generator=torch.Generator().manual_seed(1)) > 0.5

    def by(dtype: torch.dtype) -> Function:
        def votes(z: Tensor) -> Tensor:
            differs = (z.flatten(1)[:, None, :8] > 0) != codes
            return F.one_hot(nearest(differs.sum(2, dtype=dtype)), 5).sum(1).float()

        return votes

    answer, found = answer_and_slopes(by(torch.int32), scores())
    expected, wanted = answer_and_slopes(by(torch.float32), scores())
    assert torch.equal(answer, expected)
    assert wanted.any()
    torch.testing.assert_close(found, wanted)
