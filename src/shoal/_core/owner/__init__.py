"""What one process knows of the objects, tasks and actors it created.  Pure."""
