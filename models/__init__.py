"""What is learned and shipped."""
