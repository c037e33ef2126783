#include "services/model/tensor_ops.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::model {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

Ranges Parts(int64_t rows, int64_t cols, int64_t elements) {
  Ranges ranges;
  for (const auto [begin, end] : RowParts(rows, cols, elements)) {
    ranges.emplace_back(begin, end);
  }
  return ranges;
}

TEST(RowPartsTest, CoverAllRowsInOrder) {
  EXPECT_EQ(Parts(10, 4, 12), (Ranges{{0, 3}, {3, 6}, {6, 9}, {9, 10}}));
  EXPECT_EQ(Parts(6, 4, 12), (Ranges{{0, 3}, {3, 6}}));
  EXPECT_EQ(Parts(2, 4, 12), (Ranges{{0, 2}}));
}

TEST(RowPartsTest, HoldOneRowAtLeast) {
  EXPECT_EQ(Parts(3, 13, 12), (Ranges{{0, 1}, {1, 2}, {2, 3}}));
}

TEST(RowPartsTest, OfNoRowsAreNone) { EXPECT_EQ(Parts(0, 4, 12), Ranges()); }

}  // namespace
}  // namespace onegrid::model
