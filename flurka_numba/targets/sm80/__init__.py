"""Texts for tensor cores from Ampere on (sm_80 and later): products of matrices by a warp's mma.sync."""
