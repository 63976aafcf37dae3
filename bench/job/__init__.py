"""The main job, of mnist.py and sequential_mnist.py: its course, training, checkpoints, report, pictures."""
