"""unmask: is a classifier's adversarial robustness real, or does the model only mask its gradient?

What a user needs to attack a model of their own. ``__init__.pyi`` lists the names for type checkers and for the loader,
which imports each when it is first used: thus importing the package, or its reports, does not import torch.
"""

import os
from importlib import metadata

import lazy_loader

# In which order MKL adds up depends, on some processors, on where a row lies in memory; not so in this mode.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = metadata.version("unmask")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
