"""Source of a model for files as users write them."""

from __future__ import annotations

__all__ = ["MEANS"]

MEANS = '''
import torch
import torch.nn.functional as F
from torch import nn
from unmask.data import load


class Means(nn.Module):
    """Distance to the mean image of each class, which is linear in the image: no training, 90 % accuracy."""

    def __init__(self):
        super().__init__()
        x, y = load("digits", "train").batch()
        mean = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
        self.read = nn.Linear(64, 10)
        self.read.weight.data, self.read.bias.data = 2 * mean, -(mean ** 2).sum(1)

    def forward(self, x):
        return self.read(x.flatten(1))
'''
