"""A farm at work while faults hit it, and an account of every job afterwards: ``python -m chaos --seconds 600 --seed 7``.

Server and workers are real processes, and so are the jobs. They talk through a proxy that drops, halves, delays and
freezes connections. What is hit when is drawn from a seed.
"""
