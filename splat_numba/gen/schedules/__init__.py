"""What is launched, as values: steps over buffers or arrays, tensors, and what a copy engine is told of them."""
