"""Whole networks with one neuron or another, for networks.py and convert.py."""
