"""What `pytest --quick` runs: every test function that is not slow, with a few of its cases.

Most changes break many cases of some function: of twenty thousand cases a few of each function are a seventh. Left out
is what takes seconds by its nature (processes, memory, full disks, many examples, pages of documents), and the bridges,
which have `make test-bridges`.
"""

import random

# Cases of one function, drawn by its name: the same ones every time, from all over its parameters.
CASES = 6
# And of the functions in COSTLY.
COSTLY_CASES = 2
# Examples of a property test that asks for no number of its own.
EXAMPLES = 8

FILES = [
    "bridges",
    "test_build.py",
    "test_documents.py",
    "test_fuzz.py",
    "test_layers_damaged.py",
    "test_layers_hostile.py",
    "test_memory.py",
    "test_mutants.py",
    "test_process.py",
]

# Found by `pytest --durations`: each took more than a second of a processor.
TESTS = [
    "test_command_line.py::test_as_a_program",
    "test_command_line.py::test_commands_do_their_work_without_streams",
    "test_command_line.py::test_errors_without_streams",
    "test_command_line.py::test_letters_that_the_locale_has_not",
    "test_command_line.py::test_what_has_no_stream_goes_to_no_other",
    "test_config.py::test_broken_keras_json",
    "test_conv.py::test_large_images",
    "test_filter.py::test_filters_of_more_than_2_31_elements",
    "test_filter.py::test_maps_are_streamed",
    "test_filter.py::test_values_and_bits_however_work_is_cut",
    "test_filter.py::test_workspace_is_bounded",
    "test_grad_conv.py::test_large_images",
    "test_layers_quantize.py::test_memory",
    "test_layers_quantize.py::test_memory_of_loading",
    "test_layers_sequential.py::test_models_may_be_deep",
    "test_machine.py::test_a_quota_limits_every_wish",
    "test_namespace.py::test_a_look_imports_no_framework",
    "test_namespace.py::test_use_of_an_absent_framework_says_what_to_install",
    "test_operations.py::test_no_byte_beyond_an_array",
    "test_properties.py::test_gradients",
    "test_properties.py::test_gradients_are_adjoint",
    "test_properties.py::test_low_limits",
    "test_properties.py::test_same_bits_however_work_is_cut",
    "test_properties.py::test_specials_reach_the_gradients_that_hold_them",
    "test_saving.py::test_full_disk",
    "test_small_kernels.py::test_any_dtypes",
    "test_small_kernels.py::test_larger_ones_with_any_number_of_threads",
    "test_small_kernels.py::test_kernels_of_more_than_2_31_bytes",
    "test_small_kernels.py::test_maps_are_streamed",
    "test_small_kernels.py::test_no_kernel_in_float32",
    "test_threads.py::test_environment",
    "test_threads.py::test_kernel_of_more_than_2_31_elements",
    "test_threads.py::test_settings_that_change_all_the_time",
    "test_threads.py::test_the_gil_is_released",
    "test_threads.py::test_workspace_is_bounded",
    "test_threads.py::test_wrong_environment",
    "test_winograd.py::test_error_against_the_largest_pixel_of_a_square",
    "test_winograd.py::test_error_of_data_of_one_size",
]

# A case of each takes a quarter of a second, or more.
COSTLY = [
    "test_config.py::test_keras_json_that_is_none",
    "test_config.py::test_no_file_where_the_home_says",
    "test_depthwise.py::test_geometries",
    "test_grad_arrays.py::test_concurrent_calls",
    "test_grad_arrays.py::test_same_bits_again",
    "test_grad_conv.py::test_a_million_positions",
    "test_grad_conv.py::test_a_million_positions_in_two_dimensions",
    "test_grad_conv.py::test_four_million_equal_values",
    "test_grad_conv.py::test_nothing_is_left_of_an_earlier_call",
    "test_grad_local.py::test_many_positions",
    "test_small_kernels.py::test_strided_kernels_are_copied_in_their_few_bytes",
]


def is_slow(path):
    """Whether a file or folder of tests is left out."""
    return path.name in FILES


def select(items):
    """The tests that run, in their order, and those that do not."""
    functions = {}
    for item in items:
        functions.setdefault(f"{item.path.name}::{item.originalname}", []).append(item)
    kept = set()
    for name, cases in functions.items():
        if name not in TESTS:
            count = COSTLY_CASES if name in COSTLY else CASES
            kept.update(random.Random(name).sample(cases, min(count, len(cases))))
    return [item for item in items if item in kept], [item for item in items if item not in kept]
