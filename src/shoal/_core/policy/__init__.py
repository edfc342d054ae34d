"""Choices as pure functions: which node, which bundle, which line to fold."""
