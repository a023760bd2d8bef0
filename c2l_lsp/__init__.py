"""Code completion that knows your repository without reading it into the prompt."""

__version__ = "0.1.0"
