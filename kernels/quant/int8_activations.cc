#include "kernels/quant/int8_activations.h"

#include <cmath>
#include <cstddef>

#include "kernels/base/check.h"
#include "kernels/quant/grid.h"

namespace onegrid::quant {
namespace {

// The steps of one group: what its elements are multiplied by to become codes,
// and what codes are multiplied by to become values.
struct Steps {
  float inverse;
  float scale;
};

Steps StepsOf(absl::Span<const float> x) {
  float amax = 0;
  for (const float value : x) {
    const float magnitude = std::fabs(value);
    amax = magnitude > amax ? magnitude : amax;
  }
  return {amax > kSmallestActivation ? 127.0f / amax : 0.0f, amax / 127.0f};
}

// The code as a float. x * inverse is at most 127 and a rounding error, so the
// grid's clamp changes nothing.
float CodeF32(float x, const Steps& steps) {
  return RoundStepsF32(x * steps.inverse, kInt8G32);
}

void FakeQuantizeGroup(absl::Span<float> x) {
  const Steps steps = StepsOf(x);
  for (float& value : x) value = CodeF32(value, steps) * steps.scale;
}

}  // namespace

float QuantizeInt8(absl::Span<const float> x, int8_t* codes) {
  const Steps steps = StepsOf(x);
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<int8_t>(CodeF32(x[i], steps));
  }
  return steps.scale;
}

void Int8Rest(absl::Span<const float> x, const int8_t* codes, float scale,
              float* rest) {
  for (size_t i = 0; i < x.size(); ++i) {
    rest[i] = x[i] - static_cast<float>(codes[i]) * scale;
  }
}

void FakeQuantizeOneTerm(absl::Span<float> x) {
  KERNELS_CHECK(x.size() % kActivationGroup == 0);
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    FakeQuantizeGroup(x.subspan(at, kActivationGroup));
  }
}

void FakeQuantizeTwoTerms(absl::Span<float> x) {
  KERNELS_CHECK(x.size() % kActivationGroup == 0);
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    const absl::Span<float> group = x.subspan(at, kActivationGroup);
    const Steps steps = StepsOf(group);
    float rest[kActivationGroup];
    for (int i = 0; i < kActivationGroup; ++i) {
      const float first = CodeF32(group[i], steps) * steps.scale;
      rest[i] = group[i] - first;
      group[i] = first;
    }
    FakeQuantizeGroup(absl::MakeSpan(rest));
    for (int i = 0; i < kActivationGroup; ++i) group[i] += rest[i];
  }
}

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
  FakeQuantizeGroup(key);
  RotateHadamard(key);
}

}  // namespace onegrid::quant
