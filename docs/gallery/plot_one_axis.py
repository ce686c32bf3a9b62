"""
One axis: the short-time Fourier transform
==========================================

A spectrogram is a convolution of a signal with complex kernels, one for each frequency, under a stride. Its adjoint turns
a spectrogram back into sound.
"""

# %%
# The signal rises from 200 to 3000 Hz, with a short click and some noise.

import matplotlib.pyplot as plt
import numpy as np

from convmat import Convolution

rate, n = 8000, 16000
seconds = np.arange(n) / rate
rng = np.random.default_rng(0)
signal = np.cos(2 * np.pi * (200 * seconds + 700 * seconds**2)) + 0.1 * rng.standard_normal(n)
signal[10000:10020] += 4

# %%
# The kernel of a frequency is a window times a wave. All frequencies together are the rows of the discrete Fourier
# transform, so there is a channel for each: kernel (C_out, C_in, k) = (256, 1, 256). A stride of 64 makes the windows
# overlap by three quarters, and circular padding makes all of them whole.

k, hop = 256, 64
window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(k) / k)
waves = np.exp(-2j * np.pi * np.outer(np.arange(k), np.arange(k)) / k)
kernel = (waves * window)[:, None, :]
F = Convolution(kernel, (1, n), stride=hop, padding=((k // 2, k // 2 - hop),), padding_mode="circular")
spectrogram = F.apply(signal[None])
print(F)

frame = 57
start = frame * hop - k // 2
assert np.allclose(spectrogram[:, frame], np.fft.fft(window * signal[start : start + k]))

fig, ax = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
decibels = 20 * np.log10(np.abs(spectrogram[: k // 2]))
time, frequency = np.arange(n // hop) * hop / rate, np.arange(k // 2) * rate / k
image = ax.pcolormesh(time, frequency, decibels, cmap="magma", vmin=-20, vmax=40)
ax.set(xlabel="time (s)", ylabel="frequency (Hz)", title="Short-time Fourier transform")
fig.colorbar(image, label="magnitude (decibels)")
plt.show()

# %%
# The adjoint adds up windowed waves where they came from, known as overlap-add. Here AᴴA is a multiple of the identity,
# because the squares of the overlapping windows add up to a constant: the adjoint, scaled, is an inverse.

scale = k * (window**2).reshape(-1, hop).sum(axis=0)
assert np.allclose(scale, scale[0])
assert np.allclose(F.H.apply(spectrogram)[0] / scale[0], signal)

# %%
# So one can paint in a spectrogram and listen to the result. Here all that is below 20 decibels is set to zero, which
# takes away most of the noise.

cleaned = F.H.apply(spectrogram * (np.abs(spectrogram) > 10))[0] / scale[0]
assert np.abs(cleaned.imag).max() < 1e-9

fig, axes = plt.subplots(2, 1, figsize=(5.4, 3.6), layout="constrained", sharex=True, sharey=True)
part = slice(1600, 1900)
curves = {"signal": signal, "above 20 decibels": cleaned.real}
for ax, (title, values) in zip(axes, curves.items(), strict=True):
    ax.plot(seconds[part], values[part])
    ax.set_title(title)
axes[1].set(xlabel="time (s)")
fig.supylabel("amplitude", fontsize="medium")
plt.show()
