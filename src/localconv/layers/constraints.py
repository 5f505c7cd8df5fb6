# The public place of what keras_objects/constraints.py defines.
from .keras_objects.constraints import *  # noqa: F403
from .keras_objects.constraints import __all__ as __all__
from .keras_objects.constraints import __doc__ as __doc__
