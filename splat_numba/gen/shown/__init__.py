"""Plans for people: pictures, and the kinds of work that tests ask for."""
