"""The microbenchmarks of kernels.py: a file for each table, and one for the pictures of them."""
