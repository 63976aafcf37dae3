"""What bench/gpu.sh runs: its stages and facts; cases, timing and targets of the gpu_*.py beside it."""
