"""SPLAT's operators on packed values, for any GPU: a page of text each, one for every mask."""
