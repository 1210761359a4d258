"""What all tests share."""

from hypothesis import settings

# The same examples each time and no clock: a test says the same thing on every machine, however busy it is.
settings.register_profile("default", derandomize=True, deadline=None, max_examples=30)
# For a person who looks for trouble: pytest --hypothesis-profile=thorough tests/test_codec.py
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.load_profile("default")
