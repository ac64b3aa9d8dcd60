"""The handlers that come with keshi, one module for each system."""
