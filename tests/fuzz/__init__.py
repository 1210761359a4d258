"""What must hold for any bytes that a peer, or a disk, may bring. ``python -m fuzz CORPUS`` searches for what breaks it.

What was found lies in ``tests/data/fuzz``, and is tried each time.
"""
