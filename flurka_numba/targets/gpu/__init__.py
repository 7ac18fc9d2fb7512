"""What the texts of all targets on a GPU share."""
