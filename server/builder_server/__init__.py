"""The server: schedule, queues, dispatch, console, results, upload."""
