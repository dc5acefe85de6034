"""Speed, beside what else does the same work: ``python -m benchmarks --help``.

Everything is measured in one process, in alternation, so that whatever else the machine does
slows all of it alike; memory in processes of its own, one after the other. Where steps take
seconds, the process's own CPU time is reported (CPU s), without the time it waited for a core.
Peers are optional; a missing one is reported:

- diffusers: ``pip install -e ".[bench]"``.
- lmnt's WaveGrad: ``pip install --no-deps wavegrad``. The package pins versions of its
  dependencies that are long gone; its network needs nothing but torch and numpy.
"""
