"""Texts for Hopper (sm_90a): compress the tokens to slots, make the state of every head, apply it to the queries."""
