#include "services/common/byte_size.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

TEST(ByteSizeTest, ReadsUnitsOfPowersOfAThousand) {
  EXPECT_EQ(*ParseByteSize("0"), 0);
  EXPECT_EQ(*ParseByteSize("1048576"), 1'048'576);
  EXPECT_EQ(*ParseByteSize("12b"), 12);
  EXPECT_EQ(*ParseByteSize("3KB"), 3'000);
  EXPECT_EQ(*ParseByteSize("500mb"), 500'000'000);
  EXPECT_EQ(*ParseByteSize(" 1.5 GB "), 1'500'000'000);
  EXPECT_EQ(*ParseByteSize("2G"), 2'000'000'000);
  EXPECT_EQ(*ParseByteSize("9TB"), 9'000'000'000'000);
}

TEST(ByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "B", "GB", "-1", "1e3", "nan", "inf", "0x10",
                           "1.2.3", "5 apples", "5GiB", "9999999999TB"}) {
    const auto size = ParseByteSize(text);
    EXPECT_EQ(ErrorReason(size.status()), "INVALID_SIZE") << text;
  }
}

}  // namespace
}  // namespace onegrid::common
