#ifndef KERNELS_BASE_RANDOM_FLOATS_H_
#define KERNELS_BASE_RANDOM_FLOATS_H_

#include <cstdint>
#include <random>
#include <vector>

namespace onegrid::kernels {

// For tests: `count` numbers of the standard normal distribution, the same for
// the same seed and C++ library.
inline std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

}  // namespace onegrid::kernels

#endif  // KERNELS_BASE_RANDOM_FLOATS_H_
