"""The back ends: each module says what is special about one way to confine a job."""
