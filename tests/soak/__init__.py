"""The long tests of reliability and security: one bar per fault, each with a count and planted faults it must find."""
