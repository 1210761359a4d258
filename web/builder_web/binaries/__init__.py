"""What ELF binaries say of themselves. No I/O but on the binary that is given."""
