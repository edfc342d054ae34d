"""What users touch: thin, typed, documented; the public names are in ``shoal``."""
