"""The engine `fft`: products of spectra, tile by tile."""
