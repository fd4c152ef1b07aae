"""Estimators of scikit-learn: their scores, in the columns of the data's classes, from a factory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.commands import unmask
from unmask.auditing.run import audit
from unmask.data import load
from unmask.evaluation.models.estimators import as_function
from unmask.evaluation.models.targets import find_target
from unmask.threats import Linf

DIGITS = load("digits", n=64)
X, Y = DIGITS.batch()
ROWS = X.flatten(1).numpy()
TRAIN = load("digits", "train").first(300)


def fitted(estimator: Any, names: Any = None) -> Any:
    x, y = TRAIN.batch()
    labels = y.numpy()
    return estimator.fit(x.flatten(1).numpy(), labels if names is None else np.asarray(names)[labels])


def scores(estimator: Any, images: Any = None, classes: tuple[str, ...] = DIGITS.classes) -> Any:
    function = as_function(estimator, classes)
    assert function is not None
    return function(X.numpy() if images is None else images)


def test_probabilities_before_decisions_before_labels() -> None:
    logistic, ridge = fitted(LogisticRegression()), fitted(make_pipeline(StandardScaler(), RidgeClassifier()))
    assert np.allclose(scores(logistic), logistic.predict_proba(ROWS))
    assert np.allclose(scores(ridge), ridge.decision_function(ROWS))

    class Labels:
        def predict(self, rows: Any) -> Any:
            return logistic.predict(rows)

    assert (scores(Labels()) == np.eye(10)[logistic.predict(ROWS)]).all()


def test_columns_are_in_the_order_of_the_datas_classes() -> None:
    names = [f"digit {9 - k}" for k in range(10)]  # sorted otherwise than the classes
    estimator = fitted(LogisticRegression(), names)
    assert np.allclose(scores(estimator, classes=tuple(names)), estimator.predict_proba(ROWS)[:, ::-1])
    x, y = TRAIN.batch()
    some = y.numpy() > 6
    few = LogisticRegression().fit(x.flatten(1).numpy()[some], y.numpy()[some])
    found = scores(few)
    assert np.allclose(found[:, 7:], few.predict_proba(ROWS))
    assert (found[:, :7] == 0).all()
    two = RidgeClassifier().fit(x.flatten(1).numpy(), y.numpy() > 4)
    assert (scores(two, classes=("small", "large")).argmax(1) == two.predict(ROWS)).all()


def test_data_may_lack_the_highest_class_of_an_estimator_and_the_estimator_that_of_the_data() -> None:
    below = TRAIN.labels < 9
    x, y = TRAIN.floats(below.nonzero().flatten())
    few = LogisticRegression().fit(x.flatten(1).numpy(), y.numpy())
    assert (scores(few)[:, 9] == 0).all()
    estimator = fitted(LogisticRegression())
    assert np.allclose(scores(estimator, classes=DIGITS.classes[:9]), estimator.predict_proba(ROWS))
    report = audit(estimator, (X[Y < 9][:8], Y[Y < 9][:8]), Linf(0.1), n=8, budget="quick")
    assert not any("refusal" in finding.where for finding in report.findings)


def test_what_does_not_fit_is_told() -> None:
    estimator = fitted(LogisticRegression())
    with pytest.raises(ValueError, match="fitted to rows of 64 numbers, but the images have 1 x 28 x 28 = 784"):
        scores(estimator, np.zeros((2, 1, 28, 28), np.float32))
    with pytest.raises(
        ValueError, match="has the classes 0, 1, 2, 3, 4: fit it to labels from 0 to 2, or to the names"
    ):
        scores(estimator, classes=("a", "b", "c"))

    class Odd:
        def predict(self, rows: Any) -> Any:
            return rows

        def predict_proba(self, rows: Any) -> Any:
            return rows[:, :3]

    with pytest.raises(ValueError, match="gives 3 scores for its 10 classes"):
        scores(Odd())


def test_a_regressor_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="LinearRegression is a regressor: give a classifier"):
        scores(fitted(LinearRegression()))


def test_an_audit_in_python_takes_an_estimator() -> None:
    report = audit(fitted(LogisticRegression()), (X[:8], Y[:8]), Linf(0.1), n=8, budget="quick")
    assert report.accuracy.clean is not None
    assert report.accuracy.clean.value == (scores(fitted(LogisticRegression()))[:8].argmax(1) == Y[:8].numpy()).mean()


def test_other_objects_are_no_estimators() -> None:
    assert as_function(object(), DIGITS.classes) is None
    assert as_function(LogisticRegression, DIGITS.classes) is None


FACTORY = """
from sklearn.linear_model import LogisticRegression
from unmask.data import load

def fit(estimator):
    x, y = load("digits", "train").batch()
    return estimator.fit(16 * x.flatten(1).numpy(), y.numpy())

def scores(): return fit(LogisticRegression(max_iter=300))
def kind(): return LogisticRegression
"""


def test_a_factory_may_return_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    with pytest.raises(ValueError, match=r"returns type: return an nn\.Module"):
        find_target(f"{path}:kind", DIGITS)
    audit = ("audit", f"{path}:scores", "--data", "digits", "--range", "16", "--eps", "0.3", "--n", "12")
    assert unmask(*audit, "--budget", "quick", "--out", str(tmp_path / "run")) == 0
    assert unmask("verify", str(tmp_path / "run")) == 0
