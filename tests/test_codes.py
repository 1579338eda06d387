"""Packing: the order of numpy.packbits, for every kind of input."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import codes as codes_module
from fasthash.codes import check_codes, code_bytes, from_signed, pack_bits, unpack_bits

WIDTHS = [1, 7, 8, 9, 60, 64, 65, 384]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_order_is_that_of_numpy(bits, rows):
    z = np.random.default_rng(bits).random((rows, bits), np.float32)
    packed = pack_bits(z)
    np.testing.assert_array_equal(packed, np.packbits(z > 0.5, axis=1))
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, code_bytes(bits))
    np.testing.assert_array_equal(unpack_bits(packed, bits), z > 0.5)


@pytest.mark.parametrize("bits", WIDTHS)
def test_tensors_stay_tensors_on_their_device(device, bits):
    z = torch.rand(5, bits, requires_grad=True).to(device)
    packed = pack_bits(z)
    assert packed.device == z.device
    assert not packed.requires_grad
    np.testing.assert_array_equal(packed.cpu(), np.packbits(z.detach().cpu().numpy() > 0.5, axis=1))
    bits_out = unpack_bits(packed, bits)
    assert bits_out.device == z.device
    assert bits_out.dtype == torch.uint8
    np.testing.assert_array_equal(bits_out.cpu(), z.detach().cpu() > 0.5)


@pytest.mark.parametrize("bits", WIDTHS)
def test_arithmetic_of_other_devices_agrees(bits):
    z = torch.rand(4, 3, bits) > 0.5
    packed = codes_module._pack_torch(z)
    assert torch.equal(packed, pack_bits(z))
    assert torch.equal(codes_module._unpack_torch(packed, bits), codes_module._unpack(packed, bits))
    assert codes_module._pack_torch(z[:0]).shape == (0, 3, code_bytes(bits))


@pytest.mark.parametrize(
    "dtype",
    [getattr(torch, name) for name in ("bool", "float16", "bfloat16", "float32", "float64")]
    + [getattr(torch, f"{sign}int{size}") for sign in ("", "u") for size in (8, 16, 32, 64)],
)
def test_every_type(dtype):
    values = torch.tensor([[0, 1, 1, 0, 0, 0, 0, 0, 1]])
    assert pack_bits(values.to(dtype)).tolist() == [[0b01100000, 0b10000000]]


@pytest.mark.parametrize("block", [1, 100, 4096, 1 << 19])
def test_blocks_give_what_one_comparison_gives(monkeypatch, block):
    monkeypatch.setattr(codes_module, "BLOCK", block)
    rng = np.random.default_rng(block)
    names = ["float16", "bfloat16", "float32", "float64", "bool"]
    names += [f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)]
    for shape in ((37, 13), (5,), (3, 4, 9), (1, 70, 8), (0, 5), (2, 0, 5), (64, 256)):
        plain = torch.from_numpy(rng.normal(size=shape) * 3)
        for name in names:
            wide = plain if name.startswith(("f", "b", "i")) else plain.abs()
            z = wide.to(getattr(torch, name))
            compared = z.double() if not z.is_floating_point() else z
            for threshold in (0.0, 1, -1.5, 0.25, rng.normal(size=shape[-1])):
                limit = torch.as_tensor(threshold).to(compared.dtype)
                expected = np.packbits((compared > limit).numpy(), axis=-1)
                assert np.array_equal(pack_bits(z, threshold), expected)
                if z.numel() and z.ndim > 1:  # other strides
                    assert np.array_equal(pack_bits(z.flip(0)[::2], threshold), np.flip(expected, 0)[::2])
                    turned = z.movedim(0, -2).contiguous().movedim(-2, 0)
                    assert np.array_equal(pack_bits(turned, threshold), expected)
                    if name != "bfloat16":
                        found = pack_bits(np.asfortranarray(z.numpy()), threshold)
                        assert np.array_equal(found, expected)
                        assert isinstance(found, np.ndarray)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_is_found_wherever_it_is(monkeypatch, dtype):
    monkeypatch.setattr(codes_module, "BLOCK", 4096)
    for row, column in ((0, 0), (511, 32), (300, 7)):
        z = torch.rand(512, 33).to(dtype)
        z[row, column], z[3, 3] = torch.nan, torch.inf
        with pytest.raises(ValueError, match="pack_bits: z must not hold NaN, got 1 of 16896 values"):
            pack_bits(z)
    z = torch.tensor([[torch.inf, -torch.inf, 0.0]], dtype=dtype)  # their sum is NaN, they are not
    assert pack_bits(z).tolist() == [[0b10000000]]


def test_integers_of_both_signs_with_threshold_zero():
    assert pack_bits(np.array([[-3, 0, 5, 2**40]]), threshold=0).tolist() == [[0b00110000]]


def test_threshold_of_each_bit():
    z = np.array([[0.2, 0.2, 0.2], [0.6, 0.6, 0.6]])
    expected = np.packbits(z > np.array([0.1, 0.5, 0.7]), axis=1)
    np.testing.assert_array_equal(pack_bits(z, [0.1, 0.5, 0.7]), expected)
    np.testing.assert_array_equal(pack_bits(torch.tensor(z), torch.tensor([0.1, 0.5, 0.7])), torch.tensor(expected))
    np.testing.assert_array_equal(pack_bits(z, np.float32(0.25)), np.packbits(z > 0.25, axis=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_threshold_is_taken_in_the_type_of_z(dtype):
    assert pack_bits(torch.full((1, 8), 0.3, dtype=dtype), threshold=0.3).item() == 0


def test_value_at_the_threshold_is_zero_and_infinities_are_legal():
    assert pack_bits(np.array([[0.5, np.nextafter(0.5, 1), np.inf, -np.inf]])).tolist() == [[0b01100000]]


def test_views_and_read_only_arrays(tmp_path):
    z = np.random.default_rng(0).random((6, 40))
    np.save(tmp_path / "z.npy", z)
    expected = np.packbits(z > 0.5, axis=1)
    for same in (np.asfortranarray(z), np.load(tmp_path / "z.npy", mmap_mode="r"), np.repeat(z, 2, 0)[::2]):
        np.testing.assert_array_equal(pack_bits(same), expected)
    np.testing.assert_array_equal(pack_bits(z[::-1]), expected[::-1])
    assert torch.equal(pack_bits(torch.tensor(z).T), torch.tensor(np.packbits(z.T > 0.5, axis=1)))
    records = np.zeros(6, dtype=[("flag", np.uint8), ("z", np.float64, 40)])  # values that are not aligned
    records["z"] = z
    np.testing.assert_array_equal(pack_bits(records["z"]), expected)
    packed = np.asfortranarray(expected)
    packed.flags.writeable = False
    np.testing.assert_array_equal(unpack_bits(packed, 40), z > 0.5)


@pytest.mark.parametrize("dtype", [np.longlong, np.ulonglong])
def test_types_of_c_that_numpy_tells_apart(dtype):
    assert pack_bits(np.array([[1, 0, 1]], dtype=dtype)).tolist() == [[0b10100000]]


def test_numbers_wider_than_torch_has():
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(
            TypeError, match=f"pack_bits: z must be a numeric array or tensor, got ndarray of {np.dtype(np.longdouble)}"
        ):
            pack_bits(np.zeros((1, 8), dtype=np.longdouble))


def test_leading_dimensions_are_kept():
    z = np.random.default_rng(0).random((2, 3, 11))
    np.testing.assert_array_equal(pack_bits(z), np.packbits(z > 0.5, axis=-1))
    np.testing.assert_array_equal(unpack_bits(pack_bits(z), 11), z > 0.5)
    assert pack_bits([0.9, 0.1]).tolist() == [128]


@given(st.binary(min_size=1, max_size=40), st.integers(0, 7))
@settings(max_examples=50, deadline=None)
def test_pack_undoes_unpack(data, cut):
    bits = 8 * len(data) - cut
    packed = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8))[:bits])
    np.testing.assert_array_equal(pack_bits(unpack_bits(packed, bits)), packed)


@pytest.mark.parametrize(
    ("z", "threshold", "error", "message"),
    [
        (np.array([[0.1, np.nan]]), 0.5, ValueError, "pack_bits: z must not hold NaN, got 1 of 2 values"),
        (np.zeros((2, 0)), 0.5, ValueError, r"z must be \[..., D\] with D >= 1, got shape \(2, 0\)"),
        (np.float64(0.5), 0.5, ValueError, r"got shape \(\)"),
        (np.zeros((2, 3)), [0.1, 0.2], ValueError, r"one for each of the 3 bits, got shape \(2,\)"),
        (np.zeros((2, 3)), [[0.1]], ValueError, "threshold must be a number"),
        (np.zeros((2, 3)), float("nan"), ValueError, "threshold must not be NaN"),
        (torch.zeros(2, 3, dtype=torch.complex64), 0.5, TypeError, "z must be real, got complex64"),
        (np.array([["a"]]), 0.5, TypeError, "pack_bits: z must be"),
    ],
)
def test_pack_errors(z, threshold, error, message):
    with pytest.raises(error, match=message):
        pack_bits(z, threshold)


@pytest.mark.parametrize(
    ("codes", "bits", "error", "message"),
    [
        (np.zeros((2, 2), np.int64), 16, TypeError, "codes must be packed uint8, got int64"),
        (np.zeros((2, 2), np.uint8), 17, ValueError, r"codes of 17 bits must be \[..., 3\] .* got shape \(2, 2\)"),
        (np.zeros((2, 2), np.uint8), 8, ValueError, "codes of 8 bits"),
        (np.zeros((2, 0), np.uint8), 0, ValueError, "unpack_bits: bits must be at least 1, got 0"),
        (np.zeros((2, 1), np.uint8), 8.0, TypeError, "unpack_bits: bits must be an integer, got 8.0"),
    ],
)
def test_unpack_errors(codes, bits, error, message):
    with pytest.raises(error, match=message):
        unpack_bits(codes, bits)


def test_check_codes():
    good = torch.tensor([[255, 0b11110000]], dtype=torch.uint8)
    check_codes(good, 12, "f")
    check_codes(good, 16, "f")
    check_codes(good[:0], 12, "f")
    with pytest.raises(ValueError, match="f: queries must have zeros in the 5 padding bits after bit 11, got"):
        check_codes(good, 11, "f", "queries")
    with pytest.raises(ValueError, match=r"f: codes of 64 bits must be \[N, 8\], got shape \(1, 2\)"):
        check_codes(good, 64, "f")
    with pytest.raises(ValueError, match=r"must be \[N, 2\], got shape \(2,\)"):
        check_codes(good[0], 16, "f")
    with pytest.raises(TypeError, match=r"f: codes must be packed uint8 codes .* got float32"):
        check_codes(good.float(), 16, "f")


def test_check_codes_knows_signed_codes():
    with pytest.raises(TypeError, match=r"got int8; fasthash.codes.from_signed reads packed bits minus 128"):
        check_codes(torch.zeros(2, 2, dtype=torch.int8), 16, "f")


def test_from_signed_reads_what_sentence_transformers_write():
    x = np.random.default_rng(0).normal(size=(7, 48))
    ubinary = np.packbits(x > 0, axis=-1)
    binary = (ubinary.astype(np.int16) - 128).astype(np.int8)  # quantize_embeddings(x, "binary")
    np.testing.assert_array_equal(from_signed(binary), ubinary)
    np.testing.assert_array_equal(from_signed(torch.from_numpy(binary)).numpy(), ubinary)
    assert binary.dtype == np.int8  # a copy, the input stays
    with pytest.raises(TypeError, match="from_signed: codes must be int8"):
        from_signed(ubinary)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_signed_values_at_the_default_threshold_warn(kind):
    signed = kind(np.where(np.random.default_rng(0).random((4, 16)) < 0.5, -0.3, 0.3))
    with pytest.warns(UserWarning, match="no value of z is above the threshold 0.5 and some are below 0"):
        assert not pack_bits(signed).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pack_bits(signed, 0).any()
        assert pack_bits(signed * 2, 0.5).any()
        pack_bits(abs(signed))
        pack_bits(signed[:0])
