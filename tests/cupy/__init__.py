"""Tests of convmat.cupy: whichever of them comes first, a device or its stand-in is found before."""

from tests.cupy import device as device
