"""Kernels and host arrays under AddressSanitizer, on the shapes where packs, rows and pictures end in odd places."""

from tests.cuda_host import sanitize

ODD_PLACES = "addresses_that_suit_no_pack or begin_anywhere or many_sizes or stick_out or behind"


def test_nothing_is_touched_beside_what_is_meant():
    done = sanitize.run("tests/kernels", "-m", "not gpu", "-k", ODD_PLACES)
    assert done.returncode == 0, done.stdout
