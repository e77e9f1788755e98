"""Raw records to named numbers. Learns nothing: what is fitted lives in models/."""
