"""From OOF tables to calibrated probabilities and honest scores; runs without torch or openslide."""
