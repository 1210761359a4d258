"""The client: changes the schedule, watches builds, inspects executions."""
