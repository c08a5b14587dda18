"""The version of the code, in a module that every way of importing dfim finds.

Started in the folder above a clone that is named `dfim`, Python takes that folder for the package
and never runs `dfim/__init__.py`.
"""

VERSION = "0.1.0"
