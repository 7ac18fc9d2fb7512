"""What this package is within other frameworks: a module a framework, which imports it."""
