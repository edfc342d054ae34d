"""The vocabulary every layer shares: ids, refs, resources, settings."""
