"""Architectures: classifiers and generators, as plain modules."""

from unmask.nets.classifiers import conv_net, strided_net
from unmask.nets.generators import conv_critic, conv_generator, mlp_critic, mlp_generator

__all__ = ["conv_critic", "conv_generator", "conv_net", "mlp_critic", "mlp_generator", "strided_net"]
