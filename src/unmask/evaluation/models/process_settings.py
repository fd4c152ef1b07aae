"""What code of others changes in torch for the whole process when it is loaded: put back, and said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from unmask.kinds import FindingKind
from unmask.models.forms import under_default_dtype
from unmask.records import Finding

__all__ = ["ProcessSettings", "own_settings"]


@dataclass(frozen=True)
class ProcessSettings:
    """Settings of torch that hold for the whole process, as they were."""

    dtype: torch.dtype
    gradients: bool

    @classmethod
    def now(cls) -> ProcessSettings:
        """As they are now."""
        return cls(torch.get_default_dtype(), torch.is_grad_enabled())

    def applied(self, model: nn.Module) -> tuple[nn.Module, list[Finding]]:
        """A model that was made under the settings of now, so that it runs under these as it does under those."""
        now, found = ProcessSettings.now(), []
        if now.dtype != self.dtype:
            name = str(now.dtype).removeprefix("torch.")
            found.append(_changed(f"torch's default type to {name}: it holds for this model alone", "model.float()"))
            model = under_default_dtype(model, now.dtype)
        if self.gradients and not now.gradients:
            found.append(_changed("gradients off: unmask restores them", "use torch.no_grad() only where needed"))
        return model, found


@contextmanager
def own_settings() -> Iterator[ProcessSettings]:
    """Run a block, then put the settings back that hold for the whole process.

    >>> with own_settings():
    ...     torch.set_default_dtype(torch.float64)
    >>> torch.get_default_dtype()
    torch.float32
    """
    before = ProcessSettings.now()
    try:
        yield before
    finally:
        torch.set_default_dtype(before.dtype)
        torch.set_grad_enabled(before.gradients)


def _changed(what: str, remedy: str) -> Finding:
    return Finding(
        kind=FindingKind.PROCESS_SETTING, module="", where=f"its code sets {what}", evidence={}, remedy=remedy
    )
