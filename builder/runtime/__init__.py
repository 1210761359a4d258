"""What all programs need of the machine: sockets, files, a database, nurseries, the service manager, the end of a program."""
