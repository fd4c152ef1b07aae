"""Gradients through operations inside a forward pass that end them, without a change to the model.

The idea: while the model runs, every tensor that depends on the images may carry a *surrogate*, a second tensor with a
gradient. An operation that ends the gradient computes its own value as ever; a rule computes the surrogate of that
value from the surrogates of the inputs. Where the value is used next, a gate passes the value forward and the gradient
to the surrogate. So ``torch.round(5 * x) / 5`` gives the rounded images, and the gradient of ``x``:

    >>> import torch
    >>> from torch import nn
    >>> class Rounded(nn.Module):
    ...     def forward(self, x): return torch.round(5 * x).flatten(1) / 5
    >>> x = torch.tensor([[[[0.33]]]], requires_grad=True)
    >>> y = straight_through(Rounded())(x); y.sum().backward(); round(y.item(), 2), round(x.grad.item(), 2)
    (0.4, 1.0)

Modules: ``context`` holds the surrogates of one forward pass, ``mode`` intercepts the operations and looks up the
rules, ``view`` is the model around them. The rules:

| module | operations | surrogate | reason |
|---|---|---|---|
| ``floats`` | round, sign, comparisons, clamping | identity, or a smooth step | slope 1 where values change |
| ``integers`` | casts to integers and integer arithmetic | the same operation on floats | exact between the steps |
| ``labels`` | argmax, sort, one-hot codes, votes | class weights: the softmax of the scores | a label has no slope |
| ``indices`` | look-up tables, gather, indexing | interpolation of neighbouring entries | a table has no slope |
| ``writes`` | in-place operations, views, ``.data`` | the write, repeated on the surrogate | the value has changed |
| ``hooks`` | hooks on gradients that the model sets | suspended while the view runs | they may erase gradients |

Straight-through estimation is of Bengio, Léonard & Courville (arXiv:1308.3432); its use against defenses is backward
pass differentiable approximation (Athalye, Carlini & Wagner, ICML 2018).
"""

from unmask.gradients.straight_through.view import straight_through, unrolled

__all__ = ["straight_through", "unrolled"]
