"""What texts are written in: instructions and what they mean, a warp's lanes, entry functions, numbers' types."""
