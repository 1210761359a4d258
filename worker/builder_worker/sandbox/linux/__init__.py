"""What the kernel of Linux gives: control groups, system call filters, users, mounts."""
