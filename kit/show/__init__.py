"""Pictures for people: one page that says how far a run's score can be trusted."""
