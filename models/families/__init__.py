"""One file a model family; `candidates: [boosted]` in a Spec is boosted.py here."""
