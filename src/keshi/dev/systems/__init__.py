"""Five running systems for development, demo and tests: billing, CRM, call recordings, MA tool, affiliates.

They stand for what a company runs. They know nothing of keshi and import nothing of it, so that what is read
from them past every handler (`look`) is evidence and not an echo.
"""
