"""Fault bars: tests of reliability and security with counts, and planted faults that each bar must detect."""
