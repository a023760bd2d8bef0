"""Training hypernetworks on a frozen base: what is embedded once, what is lowered, and how it is judged."""
