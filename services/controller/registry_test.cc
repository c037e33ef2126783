#include "services/controller/registry.h"

#include <set>
#include <string>

#include "gtest/gtest.h"
#include "services/controller/controller_testing.h"
#include "services/controller/tuning_service.h"

namespace onegrid::controller {
namespace {

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() : tuning_(fixture_.context()) {
    fixture_.MakeBaseModel("b");
    fixture_.MakeDataset("d");
    request_.set_tuning_job_id("t");
    request_.mutable_tuning_job()->set_base_model("baseModels/b");
    request_.mutable_tuning_job()->set_dataset("datasets/d");
  }

  ControllerFixture fixture_;
  TuningService tuning_;
  v1::CreateTuningJobRequest request_;
};

TEST_F(RegistryTest, RepeatedRequestIdReturnsTheFirstResult) {
  request_.set_request_id("11111111-1111-1111-1111-111111111111");
  const auto first = tuning_.CreateTuningJob(request_);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto again = tuning_.CreateTuningJob(request_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(first->SerializeAsString(), again->SerializeAsString());
}

TEST_F(RegistryTest, RequestIdWithAnotherBodyIsRefused) {
  request_.set_request_id("r");
  ASSERT_TRUE(tuning_.CreateTuningJob(request_).ok());
  request_.mutable_tuning_job()->set_seed(7);
  const absl::Status status = tuning_.CreateTuningJob(request_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(common::ErrorReason(status), "REQUEST_ID_REUSED");
}

TEST_F(RegistryTest, TakenIdIsRefused) {
  ASSERT_TRUE(tuning_.CreateTuningJob(request_).ok());
  EXPECT_EQ(common::ErrorReason(tuning_.CreateTuningJob(request_).status()),
            "RESOURCE_EXISTS");
}

TEST_F(RegistryTest, IdsAreCheckedOrMadeUp) {
  for (const std::string& id :
       {std::string("A"), std::string("a/b"), std::string(64, 'a')}) {
    request_.set_tuning_job_id(id);
    EXPECT_EQ(common::ErrorReason(tuning_.CreateTuningJob(request_).status()),
              "INVALID_ID");
  }
  request_.clear_tuning_job_id();
  const auto one = tuning_.CreateTuningJob(request_);
  const auto two = tuning_.CreateTuningJob(request_);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_NE(one->name(), two->name());
}

TEST_F(RegistryTest, ValidateOnlyStoresNothing) {
  request_.set_validate_only(true);
  request_.set_request_id("r");
  ASSERT_TRUE(tuning_.CreateTuningJob(request_).ok());
  v1::GetTuningJobRequest get;
  get.set_name("tuningJobs/t");
  const absl::Status status = tuning_.GetTuningJob(get).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(common::ErrorReason(status), "RESOURCE_NOT_FOUND");
}

TEST_F(RegistryTest, PagesHoldEachResourceOnce) {
  for (int i = 0; i < 7; ++i) {
    request_.set_tuning_job_id("t" + std::to_string(i));
    ASSERT_TRUE(tuning_.CreateTuningJob(request_).ok());
  }
  std::set<std::string> names;
  v1::ListTuningJobsRequest list;
  list.set_page_size(3);
  int pages = 0;
  do {
    const auto page = tuning_.ListTuningJobs(list);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const v1::TuningJob& job : page->tuning_jobs()) {
      EXPECT_TRUE(names.insert(job.name()).second);
    }
    list.set_page_token(page->next_page_token());
    ++pages;
  } while (!list.page_token().empty());
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(names.size(), 7u);
}

TEST_F(RegistryTest, BadPagesAreRefused) {
  v1::ListTuningJobsRequest list;
  list.set_page_size(-1);
  EXPECT_EQ(common::ErrorReason(tuning_.ListTuningJobs(list).status()),
            "INVALID_PAGE_SIZE");
  list.set_page_size(0);
  for (const std::string& token :
       {std::string("x"), MakePageToken("datasets", 1)}) {
    list.set_page_token(token);
    EXPECT_EQ(common::ErrorReason(tuning_.ListTuningJobs(list).status()),
              "INVALID_PAGE_TOKEN");
  }
}

TEST_F(RegistryTest, MissingBlobIsNamed) {
  v1::Dataset dataset;
  dataset.mutable_train()->mutable_artifact()->set_sha256(std::string(64, 'a'));
  const absl::Status status =
      fixture_.context()->Commit([&](StoreTransaction& transaction) {
        return RecordArtifacts(*fixture_.context(), transaction, dataset);
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(common::ErrorReason(status), "ARTIFACT_MISSING");
}

TEST_F(RegistryTest, EtagFollowsTheContent) {
  v1::Dataset dataset = fixture_.MakeDataset("e");
  EXPECT_TRUE(CheckEtag(dataset, dataset.etag()).ok());
  EXPECT_TRUE(CheckEtag(dataset, "").ok());
  const std::string old_etag = dataset.etag();
  dataset.set_display_name("new");
  SetEtag(&dataset);
  const absl::Status status = CheckEtag(dataset, old_etag);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(common::ErrorReason(status), "ETAG_MISMATCH");
}

}  // namespace
}  // namespace onegrid::controller
