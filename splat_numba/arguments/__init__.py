"""The door: every argument of both packages is checked here, once, and refused by name.

A message begins with the argument's name, and says what was wanted, what came, and the next step.
"""
