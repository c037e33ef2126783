#include "services/common/error_info.h"

#include "gtest/gtest.h"

namespace onegrid::common {
namespace {

TEST(ErrorInfoTest, ReasonAndMetadataSurvive) {
  const absl::Status status = MakeError(
      absl::StatusCode::kInvalidArgument, "BAD_RANK", "rank 900 of 1..256",
      {{"field", "rank"}, {"value", std::string(300, '9')}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "rank 900 of 1..256");
  EXPECT_EQ(ErrorReason(status), "BAD_RANK");
  EXPECT_EQ(ErrorMetadata(status).at("field"), "rank");
  EXPECT_EQ(ErrorMetadata(status).at("value"), std::string(300, '9'));
}

TEST(ErrorInfoTest, PlainStatusHasNoReason) {
  EXPECT_EQ(ErrorReason(absl::NotFoundError("x")), "");
  EXPECT_TRUE(ErrorMetadata(absl::OkStatus()).empty());
}

absl::StatusOr<int> Twice(absl::StatusOr<int> in) {
  ASSIGN_OR_RETURN(const int value, in);
  RETURN_IF_ERROR(absl::OkStatus());
  return 2 * value;
}

TEST(ErrorInfoTest, MacrosPassValuesAndErrors) {
  EXPECT_EQ(*Twice(21), 42);
  EXPECT_EQ(Twice(absl::AbortedError("no")).status().code(),
            absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace onegrid::common
