#ifndef KERNELS_CPU_VECTOR_MATH_INL_H_
#define KERNELS_CPU_VECTOR_MATH_INL_H_

// Arithmetic on the vectors of a simd_*.h, which is included first. Everything
// is local to the including file.
//
// Every instruction set gives the same bits (kernels/reference/served_ops.h has
// them in scalar form): products are fused with sums only where Fma says so,
// and sums over a row run in kSumLanes interleaved parts, however wide a vector
// is.

#include <cstdint>

namespace onegrid::cpu {
namespace {

// Parts of a sum over a row: element i goes into part i % kSumLanes.
inline constexpr int kSumLanes = 16;

// The parts of one sum, added up from the first to the last.
struct Sums {
  F parts[kSumLanes / kLanes];

  Sums() {
    for (F& part : parts) part = Set(0);
  }
  float Total() const {
    float lanes[kSumLanes];
    for (int i = 0; i < kSumLanes / kLanes; ++i) {
      Store(lanes + i * kLanes, parts[i]);
    }
    float sum = 0;
    for (int i = 0; i < kSumLanes; ++i) sum += lanes[i];
    return sum;
  }
};

inline float SumLanes(F x) {
  float lanes[kLanes];
  Store(lanes, x);
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

// e^x with a relative error below 2 * 2^-23 for -87 <= x <= 88; x outside is
// moved to that range. x = n ln 2 + r, |r| <= ln 2 / 2; e^r by the polynomial
// of Cephes' expf.
inline F Exp(F x) {
  x = Min(Max(x, Set(-87.0f)), Set(88.0f));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const F shifted = Fma(x, Set(1.44269504088896341f), Set(0x1.8p23f));
  const F n = shifted - Set(0x1.8p23f);
  F r = Fma(n, Set(-0.693359375f), x);
  r = Fma(n, Set(2.12194440e-4f), r);
  F p = Set(1.9875691500e-4f);
  p = Fma(p, r, Set(1.3981999507e-3f));
  p = Fma(p, r, Set(8.3334519073e-3f));
  p = Fma(p, r, Set(4.1665795894e-2f));
  p = Fma(p, r, Set(1.6666665459e-1f));
  p = Fma(p, r, Set(5.0000001201e-1f));
  p = Fma(p, r * r, r) + Set(1.0f);
  const I exponent = reinterpret_cast<I>(shifted) << 23;
  return reinterpret_cast<F>(reinterpret_cast<I>(p) + exponent);
}

// x / (1 + e^(-2 z)), z = sqrt(2 / pi) (x + 0.044715 x^3).
inline F GeluTanh(F x) {
  const F z2 =
      x * Fma(Set(0.0713548162726002527f), x * x, Set(1.59576912160573071f));
  return x / (Set(1.0f) + Exp(-z2));
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_VECTOR_MATH_INL_H_
