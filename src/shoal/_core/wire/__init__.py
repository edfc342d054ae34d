"""What processes say to each other, and how it becomes bytes.  Pure: no sockets."""
