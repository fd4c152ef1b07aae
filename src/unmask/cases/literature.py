"""What others stated about several cases: the table of 2018, and an earlier run of its attacks."""

from __future__ import annotations

from unmask.records import Figure

__all__ = ["ALONE", "autoattack", "earlier_run", "robust_ml", "table_of_2018"]

ALONE = "the defense alone: marked * in the table, since its authors also combine it with adversarial training"


def table_of_2018(value: float, note: str = "") -> Figure:
    """What the attacks of Athalye, Carlini & Wagner left, as in Table 1 and in the README of their code."""
    source = "Athalye, Carlini & Wagner, ICML 2018, Table 1"
    return Figure(value, source, "https://github.com/anishathalye/obfuscated-gradients", note)


def robust_ml(value: float, note: str = "") -> Figure:
    """A claim, or an analysis of it, as the catalog robust-ml.org lists it."""
    url = "https://github.com/robust-ml/robust-ml.github.io/blob/master/_data/defenses.yml"
    return Figure(value, "robust-ml.org, _data/defenses.yml", url, note)


def autoattack(value: float, note: str = "") -> Figure:
    """A line of the tables in AutoAttack's README."""
    return Figure(value, "Croce & Hein, README of AutoAttack", "https://github.com/fra31/auto-attack", note)


def earlier_run(value: float, note: str = "") -> Figure:
    """A line of a table that a re-run of the attacks of 2018 published, without the runs or their sizes."""
    source = "README of Shruti2301/Feature-Distillation-as-a-Defense-Mechanism, column Our Accuracy"
    url = "https://github.com/Shruti2301/Feature-Distillation-as-a-Defense-Mechanism"
    unevidenced = "the repository has neither the runs nor their sizes"
    return Figure(value, source, url, f"{note}; {unevidenced}" if note else unevidenced)
