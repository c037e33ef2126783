#ifndef KERNELS_CPU_VECTOR_KERNELS_INL_H_
#define KERNELS_CPU_VECTOR_KERNELS_INL_H_

// The ops of vector_kernels.h on the vectors of a simd_*.h, which is included
// first. Everything is local to the including file.

#include <cstdint>

#include "kernels/cpu/vector_kernels.h"
#include "kernels/cpu/vector_math_inl.h"

namespace onegrid::cpu {
namespace {

// Loads and stores the first `count` lanes, 0 < count < kLanes.
inline F LoadSome(const float* p, int64_t count) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return Load(lanes);
}

inline void StoreSome(float* p, F x, int64_t count) {
  float lanes[kLanes];
  Store(lanes, x);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// out[i] = op(a[i], b[i]).
template <typename Op>
inline void Map(const float* a, const float* b, int64_t count, float* out,
                Op op) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Store(out + i, op(Load(a + i), Load(b + i)));
  }
  if (i < count) {
    StoreSome(out + i,
              op(LoadSome(a + i, count - i), LoadSome(b + i, count - i)),
              count - i);
  }
}

void GeluMulRow(const float* gate, const float* up, int64_t count, float* out) {
  Map(gate, up, count, out, [](F g, F u) { return GeluTanh(g) * u; });
}

void AddRow(const float* a, const float* b, int64_t count, float* out) {
  Map(a, b, count, out, [](F x, F y) { return x + y; });
}

void SoftCapRow(const float* x, float cap, int64_t count, float* out) {
  const F twice = Set(2.0f / cap);
  Map(x, x, count, out, [&](F a, F) {
    const F e = Exp(a * twice);
    return Set(cap) * ((e - Set(1.0f)) / (e + Set(1.0f)));
  });
}

void ScaleRow(const float* x, float factor, int64_t count, float* out) {
  Map(x, x, count, out, [factor](F a, F) { return a * Set(factor); });
}

// Rows whose squares are summed up side by side: those of one are a chain in
// which each vector waits for the one before.
inline constexpr int kNormRows = kLanes >= 16 ? 4 : kLanes >= 8 ? 2 : 1;

// Of kRows rows.
template <int kRows>
inline void RmsNormSome(const float* x, const float* weight, int64_t k,
                        float eps, bool add, float* out) {
  Sums sums[kRows];
  int64_t i = 0;
  for (; i + kSumLanes <= k; i += kSumLanes) {
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      for (F& part : sums[row].parts) {
        const F v = Load(x + row * k + i + (&part - sums[row].parts) * kLanes);
        part = Fma(v, v, part);
      }
    }
  }
  float factors[kRows];
  for (int row = 0; row < kRows; ++row) {
    const float* from = x + row * k;
    for (F& part : sums[row].parts) {
      const int64_t at = i + (&part - sums[row].parts) * kLanes;
      if (at >= k) break;
      const F v =
          at + kLanes <= k ? Load(from + at) : LoadSome(from + at, k - at);
      part = Fma(v, v, part);
    }
    const float mean = sums[row].Total() / static_cast<float>(k);
    factors[row] = 1.0f / __builtin_sqrtf(mean + eps);
  }
  for (const float each : factors) {
    const F factor = Set(each);
    int64_t j = 0;
    for (; j + kLanes <= k; j += kLanes) {
      const F y = Load(x + j) * factor * Load(weight + j);
      Store(out + j, add ? Load(out + j) + y : y);
    }
    if (j < k) {
      const F y = LoadSome(x + j, k - j) * factor * LoadSome(weight + j, k - j);
      StoreSome(out + j, add ? LoadSome(out + j, k - j) + y : y, k - j);
    }
    x += k;
    out += k;
  }
}

void RmsNormRows(const float* x, const float* weight, int64_t rows, int64_t k,
                 float eps, bool add, float* out) {
  int64_t row = 0;
  for (; row + kNormRows <= rows; row += kNormRows) {
    RmsNormSome<kNormRows>(x + row * k, weight, k, eps, add, out + row * k);
  }
  for (; row < rows; ++row) {
    RmsNormSome<1>(x + row * k, weight, k, eps, add, out + row * k);
  }
}

void RopeRow(const float* cosines, const float* sines, int64_t half, float* x) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const F a = Load(x + i), b = Load(x + half + i);
    const F c = Load(cosines + i), s = Load(sines + i);
    Store(x + i, Fma(a, c, -(b * s)));
    Store(x + half + i, Fma(a, s, b * c));
  }
  if (i < half) {
    const int64_t left = half - i;
    const F a = LoadSome(x + i, left), b = LoadSome(x + half + i, left);
    const F c = LoadSome(cosines + i, left), s = LoadSome(sines + i, left);
    StoreSome(x + i, Fma(a, c, -(b * s)), left);
    StoreSome(x + half + i, Fma(a, s, b * c), left);
  }
}

// One stage within vectors: lane i becomes lane (i ^ step) plus or minus
// itself, minus where i has the bit.
template <int kStep>
inline F Butterfly(F x) {
  I partner;
  F sign;
  for (int i = 0; i < kLanes; ++i) {
    partner[i] = i ^ kStep;
    sign[i] = (i & kStep) != 0 ? -1.0f : 1.0f;
  }
  return __builtin_shuffle(x, partner) + x * sign;
}

void HadamardRow(float* x, int64_t d) {
  const F factor = Set(1.0f / __builtin_sqrtf(static_cast<float>(d)));
  for (int64_t i = 0; i < d; i += kLanes) {
    F v = Load(x + i) * factor;
    v = Butterfly<1>(v);
    v = Butterfly<2>(v);
    if constexpr (kLanes >= 8) v = Butterfly<4>(v);
    if constexpr (kLanes >= 16) v = Butterfly<8>(v);
    Store(x + i, v);
  }
  for (int64_t step = kLanes; step < d; step *= 2) {
    for (int64_t base = 0; base < d; base += 2 * step) {
      for (int64_t i = base; i < base + step; i += kLanes) {
        const F a = Load(x + i), b = Load(x + i + step);
        Store(x + i, a + b);
        Store(x + i + step, a - b);
      }
    }
  }
}

void LargestOf16(const float* x, int64_t count, float* out) {
  const F none = Set(-__builtin_inff());
  for (int64_t i = 0; i < count; ++i) {
    F largest = none;
    for (int j = 0; j < 16; j += kLanes) {
      // Of two, one of them no number, Max takes the second.
      largest = Max(Load(x + 16 * i + j), largest);
    }
    out[i] = MaxLane(largest);
  }
}

void AddUp16(const float* a, float unit, const float* b, int64_t count,
             float* sums, float* largest) {
  const bool aligned = reinterpret_cast<uintptr_t>(sums) % 64 == 0;
  for (int64_t i = 0; i < count; ++i) {
    F most = Set(-__builtin_inff());
    for (int64_t at = 16 * i; at < 16 * i + 16; at += kLanes) {
      const F sum = Set(unit) * Load(a + at) + Load(b + at);
      if (aligned) {
        StoreStreamed(sums + at, sum);
      } else {
        Store(sums + at, sum);
      }
      most = Max(sum, most);
    }
    largest[i] = MaxLane(most);
  }
}

inline constexpr VectorKernels kLocalVectorKernels = {
    RmsNormRows, GeluMulRow,  AddRow,      SoftCapRow, ScaleRow,
    RopeRow,     HadamardRow, LargestOf16, AddUp16,
};

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_VECTOR_KERNELS_INL_H_
