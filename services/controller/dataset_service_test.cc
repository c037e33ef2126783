#include "services/controller/dataset_service.h"

#include <string>

#include "gtest/gtest.h"
#include "services/controller/controller_testing.h"
#include "services/controller/dataset_split.h"

namespace onegrid::controller {
namespace {

constexpr char kGood[] = "{\"prompt\":\"p\",\"completion\":\"c\"}\n";

class DatasetServiceTest : public testing::Test {
 protected:
  DatasetServiceTest() : service_(fixture_.context()) {}

  absl::StatusOr<v1::Dataset> Create(const std::string& test_split,
                                     bool drop_invalid = false) {
    v1::CreateDatasetRequest request;
    request.set_dataset_id("d");
    v1::Dataset* dataset = request.mutable_dataset();
    dataset->set_drop_invalid(drop_invalid);
    const v1::ArtifactRef good = fixture_.PutBlob(kGood, "good.jsonl");
    *dataset->mutable_train()->mutable_artifact() = good;
    *dataset->mutable_validation()->mutable_artifact() = good;
    *dataset->mutable_test()->mutable_artifact() =
        fixture_.PutBlob(test_split, "test.jsonl");
    return service_.CreateDataset(request);
  }

  ControllerFixture fixture_;
  DatasetService service_;
};

TEST_F(DatasetServiceTest, LinesAreCounted) {
  const auto dataset = Create(std::string(kGood) + kGood);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->train().examples(), 1);
  EXPECT_EQ(dataset->test().examples(), 2);
  EXPECT_EQ(dataset->test().artifact().file_name(), "test.jsonl");
}

TEST_F(DatasetServiceTest, EachSplitSaysItsFormatAndCounts) {
  const std::string chat =
      "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
      "{\"role\":\"assistant\",\"content\":\"a\"}]}\n";
  const std::string unanswered =
      "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n";
  EXPECT_EQ(
      common::ErrorMetadata(Create(chat + unanswered).status()).at("line"),
      "2");
  EXPECT_EQ(common::ErrorReason(Create(unanswered, true).status()),
            "DATASET_SCHEMA_INVALID");
  const auto dataset = Create(chat + unanswered, /*drop_invalid=*/true);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->train().format(), v1::PROMPT_COMPLETION);
  EXPECT_EQ(dataset->train().conversations(), 0);
  EXPECT_EQ(dataset->test().format(), v1::MESSAGES);
  EXPECT_EQ(dataset->test().examples(), 1);
  EXPECT_EQ(dataset->test().conversations(), 1);
  EXPECT_EQ(dataset->test().dropped(), 1);
  ASSERT_EQ(dataset->test().first_dropped_size(), 1);
  EXPECT_EQ(dataset->test().first_dropped(0).line(), 2);
  EXPECT_TRUE(CheckScorable(*dataset, "train").ok());
  EXPECT_EQ(common::ErrorReason(CheckScorable(*dataset, "test")),
            "NOT_SCORABLE");
}

TEST_F(DatasetServiceTest, BadLineIsNamed) {
  for (const char* bad : {"not json\n", "{\"prompt\":\"p\"}\n"}) {
    const absl::Status status = Create(std::string(kGood) + bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(common::ErrorReason(status), "DATASET_SCHEMA_INVALID");
    EXPECT_EQ(common::ErrorMetadata(status).at("split"), "test");
    EXPECT_EQ(common::ErrorMetadata(status).at("line"), "2");
    // The store's own paths stay inside.
    EXPECT_EQ(status.message().find(fixture_.folder()), std::string::npos)
        << status;
  }
}

TEST_F(DatasetServiceTest, EmptySplitIsRefused) {
  EXPECT_EQ(common::ErrorReason(Create("\n").status()),
            "DATASET_SCHEMA_INVALID");
}

TEST_F(DatasetServiceTest, MissingBlobIsNamed) {
  v1::CreateDatasetRequest request;
  request.mutable_dataset()->mutable_train()->mutable_artifact()->set_sha256(
      std::string(64, '0'));
  const absl::Status status = service_.CreateDataset(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(common::ErrorReason(status), "ARTIFACT_MISSING");
  EXPECT_EQ(common::ErrorMetadata(status).at("split"), "train");
}

TEST_F(DatasetServiceTest, DeletionChecksTheEtag) {
  const auto dataset = Create(kGood);
  ASSERT_TRUE(dataset.ok());
  v1::DeleteDatasetRequest request;
  request.set_name("datasets/d");
  request.set_etag("other");
  EXPECT_EQ(common::ErrorReason(service_.DeleteDataset(request).status()),
            "ETAG_MISMATCH");
  request.set_etag(dataset->etag());
  EXPECT_TRUE(service_.DeleteDataset(request).ok());
  EXPECT_EQ(service_.DeleteDataset(request).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace onegrid::controller
