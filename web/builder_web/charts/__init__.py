"""Drawings made on the server, as SVG. No I/O."""
