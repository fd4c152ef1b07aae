"""Estimators of scikit-learn, and of libraries with its methods, as functions of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unmask.errors import UnmaskError
from unmask.models.black_box_models import ArrayFunction, BlackBoxModel

__all__ = ["as_function", "as_module"]


def as_module(model: Any, classes: tuple[str, ...]) -> nn.Module | None:
    """A module as it is; a function of arrays or an estimator as a black box; None for anything else."""
    if isinstance(model, nn.Module):
        return model
    function = model if callable(model) and not isinstance(model, type) else as_function(model, classes)
    return None if function is None else BlackBoxModel(function)


def as_function(estimator: Any, classes: tuple[str, ...]) -> ArrayFunction | None:
    """An estimator as images (B, C, H, W) -> scores (B, K), each image as one row of C * H * W numbers.

    The scores are those of ``predict_proba``, or of ``decision_function``, or one for the class of ``predict``. Columns
    are in the order of ``classes``, those of the data: the estimator's are their numbers or their names. None for an
    object without ``predict``. The function raises UnmaskError for images of another size than the estimator was fitted
    to, and for classes that the data do not have.
    """
    if not callable(getattr(estimator, "predict", None)) or isinstance(estimator, type):
        return None
    from sklearn.base import BaseEstimator, is_regressor  # takes a second to import

    if isinstance(estimator, BaseEstimator) and is_regressor(estimator):
        raise UnmaskError(f"{type(estimator).__name__} is a regressor", "give a classifier")
    scores = _scores(estimator)

    def function(images: NDArray[np.float32]) -> NDArray[np.float64]:
        rows = images.reshape(len(images), -1)
        wanted = getattr(estimator, "n_features_in_", rows.shape[1])
        if rows.shape[1] != wanted:
            size = " x ".join(map(str, images.shape[1:]))
            raise UnmaskError(
                f"the estimator was fitted to rows of {wanted} numbers, but the images have {size} = {rows.shape[1]}"
            )
        known = [*np.asarray(getattr(estimator, "classes_", np.arange(len(classes)))).tolist()]
        if scores is None:
            predicted = estimator.predict(rows)
            return _in_columns(
                np.asarray([[one == label for label in known] for one in predicted], float), known, classes
            )
        return _in_columns(scores(rows), known, classes)

    return function


def _scores(estimator: Any) -> Callable[[Any], NDArray[np.float64]] | None:
    """The method that gives a column of scores for each class; None where only labels can be had."""
    if callable(getattr(estimator, "predict_proba", None)):
        return lambda rows: np.asarray(estimator.predict_proba(rows))
    if callable(getattr(estimator, "decision_function", None)):
        return lambda rows: _two(np.asarray(estimator.decision_function(rows)))
    return None


def _two(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of two classes scikit-learn gives one value, above 0 for the second."""
    return values if values.ndim == 2 else np.stack([-values, values], 1)


def _in_columns(scores: NDArray[np.float64], known: list[Any], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Scores of the classes that the estimator knows as columns of those of the data; the others have the lowest.

    Where the data's classes are numbers, the estimator may have higher ones, which no image of the data has.
    """
    if scores.shape[1] != len(known):
        raise UnmaskError(f"the estimator gives {scores.shape[1]} scores for its {len(known)} classes")
    places = [classes.index(one) if one in classes else one for one in known]
    if not all(isinstance(place, int | float) and place == int(place) and place >= 0 for place in places) or (
        max(places) >= len(classes) and classes != tuple(map(str, range(len(classes))))
    ):
        raise UnmaskError(
            f"the estimator has the classes {', '.join(map(str, known[:5]))}: fit it to labels from 0 to "
            f"{len(classes) - 1}, or to the names of the data's classes"
        )
    found = np.full((len(scores), max(len(classes), int(max(places)) + 1)), scores.min(initial=0.0))
    found[:, [int(place) for place in places]] = scores
    return found
