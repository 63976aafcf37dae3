from .reference import lif
