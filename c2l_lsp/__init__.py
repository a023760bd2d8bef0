"""Code completion that knows your repository without reading it into the prompt.

This package is what a user installs. Training, benchmarks and the demo belong in `c2l_lab`, tests and planted faults in
`tests`.
"""

__version__ = "0.1.0"
