#ifndef KERNELS_QUANT_INT8_ACTIVATIONS_H_
#define KERNELS_QUANT_INT8_ACTIVATIONS_H_

#include <cstdint>

#include "absl/types/span.h"

// How the serving engine rounds activations, keys and values to int8, and some
// activations to int16, in scalar form: training simulates serving with these
// functions, and the fast kernels are tested against them bit for bit. Which
// tensor is rounded how is said in services/inference/numerics.h.
//
// Inputs must be finite. No allocation; any threads may call these at once.
namespace onegrid::quant {

// Elements that share one scale in the input of a linear layer and in a value
// of the cache.
inline constexpr int kActivationGroup = 32;

// A group whose largest magnitude is not above this becomes zero: 127 / amax
// would leave the range of a float.
inline constexpr float kSmallestActivation = 1e-30f;

// THE rule, for a group of any size: with amax the largest |x[i]|, inverse =
// 127 / amax and codes[i] = x[i] * inverse rounded to the nearest integer, ties
// to even. Returns the scale, amax / 127. All f32. codes: x.size() of them.
float QuantizeInt8(absl::Span<const float> x, int8_t* codes);

// The same with codes of -32767..32767: inverse = 32767 / amax, scale = amax /
// 32767.
float QuantizeInt16(absl::Span<const float> x, int16_t* codes);

// In place, the values code * scale that a kernel computes with instead of x,
// each group of kActivationGroup on its own. x.size() is a multiple of the
// group.
void FakeQuantizeInt8(absl::Span<float> x);
void FakeQuantizeInt16(absl::Span<float> x);

// Multiplies x in place by the orthonormal Hadamard matrix of its size in
// natural order, which is its own inverse: x / sqrt(d), then butterflies of
// distance 1, 2, 4, ... in f32. x.size() is a power of two.
void RotateHadamard(absl::Span<float> x);

// In place, the key [head_dim] of one token and head as the int8 cache holds
// it: rotated, quantized as one group, rotated back. head_dim is a power of
// two.
void FakeQuantizeKey(absl::Span<float> key);

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_INT8_ACTIVATIONS_H_
