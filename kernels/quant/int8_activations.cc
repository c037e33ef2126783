#include "kernels/quant/int8_activations.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/base/check.h"

namespace onegrid::quant {
namespace {

// The steps of one group: what its elements are multiplied by to become codes,
// and what codes are multiplied by to become values.
struct Steps {
  float inverse;
  float scale;
};

template <typename Code>
constexpr float kMaxCode = static_cast<float>(std::numeric_limits<Code>::max());

template <typename Code>
Steps StepsOf(absl::Span<const float> x) {
  float amax = 0;
  for (const float value : x) {
    const float magnitude = std::fabs(value);
    amax = magnitude > amax ? magnitude : amax;
  }
  return {amax > kSmallestActivation ? kMaxCode<Code> / amax : 0.0f,
          amax / kMaxCode<Code>};
}

// The code as a float. x * inverse is at most the largest code and a rounding
// error, so nothing needs a clamp. Adding 1.5 * 2^23 leaves no fraction bits.
float CodeF32(float x, const Steps& steps) {
  constexpr float kRound = 0x1.8p23f;
  return (x * steps.inverse + kRound) - kRound;
}

template <typename Code>
float Quantize(absl::Span<const float> x, Code* codes) {
  const Steps steps = StepsOf<Code>(x);
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<Code>(CodeF32(x[i], steps));
  }
  return steps.scale;
}

template <typename Code>
void FakeQuantizeGroup(absl::Span<float> x) {
  const Steps steps = StepsOf<Code>(x);
  for (float& value : x) value = CodeF32(value, steps) * steps.scale;
}

template <typename Code>
void FakeQuantize(absl::Span<float> x) {
  KERNELS_CHECK(x.size() % kActivationGroup == 0);
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    FakeQuantizeGroup<Code>(x.subspan(at, kActivationGroup));
  }
}

}  // namespace

float QuantizeInt8(absl::Span<const float> x, int8_t* codes) {
  return Quantize(x, codes);
}

float QuantizeInt16(absl::Span<const float> x, int16_t* codes) {
  return Quantize(x, codes);
}

void FakeQuantizeInt8(absl::Span<float> x) { FakeQuantize<int8_t>(x); }

void FakeQuantizeInt16(absl::Span<float> x) { FakeQuantize<int16_t>(x); }

void RotateHadamard(absl::Span<float> x) {
  const size_t d = x.size();
  KERNELS_CHECK(d > 0 && (d & (d - 1)) == 0);
  const float factor = 1.0f / std::sqrt(static_cast<float>(d));
  for (float& value : x) value *= factor;
  for (size_t step = 1; step < d; step *= 2) {
    for (size_t base = 0; base < d; base += 2 * step) {
      for (size_t i = base; i < base + step; ++i) {
        const float a = x[i], b = x[i + step];
        x[i] = a + b;
        x[i + step] = a - b;
      }
    }
  }
}

void FakeQuantizeKey(absl::Span<float> key) {
  RotateHadamard(key);
  FakeQuantizeGroup<int8_t>(key);
  RotateHadamard(key);
}

}  // namespace onegrid::quant
