"""What every file here needs of Keras."""

import keras
import pytest


@pytest.fixture(autouse=True)
def settings_of_keras():
    """The same initial weights every time; afterwards Keras's settings are those that it started with."""
    keras.utils.set_random_seed(1)
    data_format, floatx, policy = keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_image_data_format(data_format)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
