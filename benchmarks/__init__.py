"""Speed and memory against other implementations: ``python -m benchmarks --help``.

Everything is measured in one process, in alternation, so that other load on the machine
affects all of it equally; memory in separate processes, one after the other. If steps take
seconds, the process's own time is reported (CPU s), without waiting for a core. Peers are
optional; a missing one is reported as not installed:

- diffusers: ``pip install -e ".[bench]"``.
- lmnt's WaveGrad: ``pip install --no-deps wavegrad``. The package pins obsolete versions of its
  dependencies; its network needs only torch and numpy.
- k-diffusion and azula, of ``referee`` alone: ``pip install --no-deps k-diffusion torchsde
  torchdiffeq trampoline azula``. The first pins an old numpy and training tools; its samplers need
  neither.
"""
