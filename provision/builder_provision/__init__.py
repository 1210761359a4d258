"""builder-provision: asks an engine for workers, as many as the queues of a server have work for."""
