"""What every file here needs of Keras."""

import keras
import pytest


@pytest.fixture(autouse=True)
def settings_of_keras():
    """Afterwards Keras's settings are those that it started with."""
    data_format, floatx, policy = keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_image_data_format(data_format)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
