"""The control store: what the whole cluster must agree on.  Pure."""
