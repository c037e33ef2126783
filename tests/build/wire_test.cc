// The generated wire contract links and round-trips.
#include <grpcpp/grpcpp.h>

#include "gtest/gtest.h"
#include "proto/google/rpc/error_details.pb.h"
#include "proto/onegrid/v1/tuning.grpc.pb.h"

namespace onegrid {
namespace {

TEST(WireTest, TuningJobRoundTripsThroughBytes) {
  v1::TuningJob job;
  job.set_name("tuningJobs/a");
  v1::TuningJob parsed;
  ASSERT_TRUE(parsed.ParseFromString(job.SerializeAsString()));
  EXPECT_EQ(parsed.name(), "tuningJobs/a");
}

TEST(WireTest, ErrorInfoHasTheFullNameThatGrpcClientsLookUp) {
  EXPECT_EQ(google::rpc::ErrorInfo::descriptor()->full_name(),
            "google.rpc.ErrorInfo");
}

TEST(WireTest, StubOfAServiceLinks) {
  EXPECT_NE(v1::TuningService::NewStub(grpc::CreateChannel(
                "127.0.0.1:1", grpc::InsecureChannelCredentials())),
            nullptr);
}

}  // namespace
}  // namespace onegrid
