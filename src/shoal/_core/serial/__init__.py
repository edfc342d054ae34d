"""User values, functions and errors as bytes, and back.

The only package, beside the code that users see, that opens a pickle.  Drivers and
workers use it; the head and the node daemon must not.
"""
