"""SPLAT's products on packed values by a warp's matrix products, for rows that share columns."""
