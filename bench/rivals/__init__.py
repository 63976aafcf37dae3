"""Neurons by hand and of other libraries: their calls, the layer that equals each, and its verification."""
