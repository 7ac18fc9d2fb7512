"""What people of other frameworks call: a module a framework, which imports it when it is used."""
