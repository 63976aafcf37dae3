"""What the benchmarks share: turns, memory, machine and commit, processes, files, the look of pictures."""
