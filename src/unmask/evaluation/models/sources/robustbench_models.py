"""Models of RobustBench's zoo, where robustbench is installed."""

from __future__ import annotations

from unmask.data.catalog import default_home
from unmask.errors import UnmaskError
from unmask.evaluation.models.sources.loading import Loaded, Request, library

__all__ = ["load_robustbench"]


def load_robustbench(request: Request) -> Loaded:
    """A model of the zoo: ``NAME``, which is one for cifar10 and Linf, or ``DATASET/THREAT/NAME``.

    DATASET is cifar10, cifar100 or imagenet, and THREAT is Linf, L2 or corruptions, as robustbench names them: they
    say which model of that name is loaded, and neither the data nor the ball of the run. Downloads are kept in
    ``UNMASK_HOME/robustbench``. Raises UnmaskError for a name of another form.
    """
    parts = request.name.split("/")
    if len(parts) not in (1, 3):
        raise UnmaskError("give NAME or DATASET/THREAT/NAME, such as cifar10/Linf/Carmon2019Unlabeled")
    utils = library("robustbench.utils", "robustbench", "robustbench")
    dataset, threat, name = parts if len(parts) == 3 else ("cifar10", "Linf", *parts)
    folder = default_home() / "robustbench"
    model = utils.load_model(model_name=name, model_dir=folder, dataset=dataset, threat_model=threat)
    return Loaded(model.eval())
