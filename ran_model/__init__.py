"""The Region Attention Network and its life: alignment, regions, network, training, evaluation.

Importing this package imports neither torch nor Ray; its modules import what they need.
"""
