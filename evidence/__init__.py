"""What is judged and shown. Takes arrays and bundles; knows no server."""
