"""The kernel under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: `make sanitize`."""
