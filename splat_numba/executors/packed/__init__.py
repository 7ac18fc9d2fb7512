"""What the packed operators ask of every backend."""
