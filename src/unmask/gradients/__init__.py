"""How gradients are obtained: estimators (``autograd``, ``eot``, ``spsa``), views (``bpda``, ``straight_through``)."""
