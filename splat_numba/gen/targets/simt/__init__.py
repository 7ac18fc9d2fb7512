"""Any NVIDIA GPU as a target: FMA units, shared memory, no instruction that some chips lack. The readable reference."""
