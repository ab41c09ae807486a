"""From probabilities to a submission that another person can check."""
