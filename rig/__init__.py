"""Apply a kernel patch series, build it, boot it under QEMU, stress it, and say what it breaks."""

__version__ = "0.1.0"
