"""What FreeBSD gives: zfs clones and jails."""
