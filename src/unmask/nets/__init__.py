"""Architectures: classifiers and generators, as plain modules."""

from unmask.nets.classifiers import conv_net, strided_net
from unmask.nets.generators import conv_critic, conv_generator
from unmask.nets.mobilenet import mobilenet_v2
from unmask.nets.residual import residual_net
from unmask.nets.unet import UNet

__all__ = [
    "UNet",
    "conv_critic",
    "conv_generator",
    "conv_net",
    "mobilenet_v2",
    "residual_net",
    "strided_net",
]
