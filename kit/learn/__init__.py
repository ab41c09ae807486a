"""From bags of tiles to probabilities: encoders, pooling, tuning, training and prediction."""
