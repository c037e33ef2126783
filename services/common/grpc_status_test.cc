#include "services/common/grpc_status.h"

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

TEST(GrpcStatusTest, ErrorInfoSurvivesTheWire) {
  const absl::Status sent = MakeError(absl::StatusCode::kAborted,
                                      "STALE_ATTEMPT", "m", {{"epoch", "2"}});
  const absl::Status got = FromGrpc(ToGrpc(sent));
  EXPECT_EQ(got.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ErrorReason(got), "STALE_ATTEMPT");
  EXPECT_EQ(ErrorMetadata(got).at("epoch"), "2");
}

TEST(GrpcStatusTest, PlainErrorGetsItsCodeAsReason) {
  EXPECT_EQ(ErrorReason(FromGrpc(ToGrpc(absl::NotFoundError("x")))),
            "NOT_FOUND");
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
}

TEST(GrpcStatusTest, JobErrorRoundTrips) {
  const absl::Status sent = MakeError(absl::StatusCode::kDataLoss,
                                      "CORRUPT_FILE", "m", {{"file", "a"}});
  const absl::Status got = FromJobError(ToJobError(sent));
  EXPECT_EQ(got, sent);
}

}  // namespace
}  // namespace onegrid::common
