"""Closed sets of values that decide what is done; run.json and report.json hold their strings."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MAIN_ROLES", "Access", "FindingKind", "Obfuscation", "Role"]


class Access(StrEnum):
    """What an attacker has of the model."""

    WHITE_BOX = "white box"
    GREY_BOX = "grey box"  # the classifier, not the defense
    SCORES = "scores"
    LABELS = "labels"


class Obfuscation(StrEnum):
    """How a defense masks its gradient (Athalye, Carlini and Wagner, ICML 2018)."""

    SHATTERED = "shattered"
    STOCHASTIC = "stochastic"
    VANISHING = "vanishing/exploding"
    DETECTOR = "detector"  # it refuses adversarial images; its gradient is not masked
    NONE = "none (control)"


class Role(StrEnum):
    """What a job's verdicts are for."""

    CLEAN = "clean"  # the unperturbed images
    PLAIN = "plain"  # attacks by the model's own gradient
    ADAPTIVE = "adaptive"  # attacks that are adapted to the defense
    EPS = "eps"  # the curve over the size of the ball
    STRENGTH = "strength"  # the curve over a strength of the defense
    CONTROL = "control"


MAIN_ROLES = (Role.CLEAN, Role.PLAIN, Role.ADAPTIVE)
"""Roles of the jobs whose verdicts make the figures of a case."""


class FindingKind(StrEnum):
    """What a finding is about: a kind of gradient masking, or a mistake in the model's setup."""

    SHATTERED = "shattered"
    STOCHASTIC = "stochastic"
    VANISHING = "vanishing"
    # of the setup
    ADAPTED = "adapted"
    BATCH = "batch"
    CLOCK = "clock"
    COMPILED = "compiled"
    DTYPE = "dtype"
    GRADIENT = "gradient"
    GRID = "grid"
    LABELS = "labels"
    MEMORY = "memory"
    NOT_FINITE = "not finite"
    ONE_CLASS = "one class"
    PROBABILITIES = "probabilities"
    OVERWRITES_INPUT = "overwrites input"
    PROCESS_SETTING = "setting"
    RANDOM = "random"
    RANGE = "range"
    REFUSALS = "refusals"
    TRAINING_MODE = "training mode"
    UNREPEATABLE = "unrepeatable"
