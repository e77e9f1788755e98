"""What we promise (the Spec) and where we run (the Settings)."""
