"""What is decided for a mask, a problem and a machine, whatever kinds of passes carry it out."""
