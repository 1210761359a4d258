"""Files of opam: read, compared, and what they say of a job. No I/O."""
