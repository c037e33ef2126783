#ifndef KERNELS_QUANT_GOLDEN_FILE_H_
#define KERNELS_QUANT_GOLDEN_FILE_H_

#include <cstring>
#include <fstream>
#include <ios>
#include <iterator>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::quant {

// The elements of kernels/quant/testdata/<name>, little-endian. A file that is
// missing or empty fails the test.
template <typename T>
std::vector<T> ReadGolden(const std::string& name) {
  std::ifstream in("kernels/quant/testdata/" + name, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)),
                          std::istreambuf_iterator<char>());
  EXPECT_FALSE(bytes.empty()) << name;
  EXPECT_EQ(bytes.size() % sizeof(T), 0u) << name;
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  }
  return values;
}

}  // namespace onegrid::quant

#endif  // KERNELS_QUANT_GOLDEN_FILE_H_
