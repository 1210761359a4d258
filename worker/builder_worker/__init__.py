"""The worker: takes one job per connection, runs it in a sandbox, sends its console and artifacts back."""
