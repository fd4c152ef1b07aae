"""Gradients through operations inside a forward pass that end them, without a change to the model.

The idea: while the model runs, every tensor that depends on the images may carry a *surrogate*, a second tensor with a
gradient. An operation that ends the gradient computes its own value as before; a rule computes the surrogate of that
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
rules, which see them as ``calls``; ``view`` is the model around them. The rules:

| module | operations | surrogate of the result | reason |
|---|---|---|---|
| ``floats`` | round, sign, detach | the input | the slope is 1 on average |
| ``floats`` | clamp, comparisons | a smooth saturation or step | a slope points to the threshold |
| ``floats`` | sigmoid, tanh, softmax, where they are flat | a wider one | their slope has vanished |
| ``integers`` | integer and boolean arithmetic, bits, logic | the operation on floats | equal at whole numbers |
| ``labels`` | operations on labels | class weights, by the scores that the label is of | a label has no slope |
| ``label_arithmetic`` | arithmetic and conditions on labels | class weights of the result | as above |
| ``places.order`` | argmax, top-k, sorts | class weights: softmax | a place has no slope |
| ``places.reads`` | tables, gather, embeddings | the mean of the entries, by the class weights | as above |
| ``places.spreading`` | one-hot codes, scatter, counts | what is written, to each place by its weight | as above |
| ``writes`` | in-place operations, views | the write, done on the surrogate | the value has changed |
| ``hooks`` | hooks on gradients that the model sets | suspended | they may erase gradients |

Straight-through estimation is of Bengio, Léonard & Courville (arXiv:1308.3432); its use against defenses is backward
pass differentiable approximation (Athalye, Carlini & Wagner, ICML 2018).
"""

from unmask.gradients.straight_through.view import narrow_straight_through, straight_through, unrolled

__all__ = ["narrow_straight_through", "straight_through", "unrolled"]
