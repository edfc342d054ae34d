"""What was sent to a process to run, and how far it is.  Pure."""
