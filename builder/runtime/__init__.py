"""What all programs need of the machine: sockets, files, nurseries, the service manager, the end of a program."""
