"""HTTP/1.1 for the application: listeners, connections, and what a request is wrapped into."""
