"""Sources and their frames: listing, probing, archives, sampling, decoding. No Ray and no torch."""
