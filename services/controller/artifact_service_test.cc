#include "services/controller/artifact_service.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/controller/controller_testing.h"

namespace onegrid::controller {
namespace {

class ArtifactServiceTest : public testing::Test {
 protected:
  ArtifactServiceTest() : service_(fixture_.context()) {}

  static std::string UploadNameOf(const std::string& bytes) {
    return absl::StrCat("uploads/1-2/blobs/", common::Sha256Of(bytes), "/",
                        bytes.size());
  }

  // Sends bytes[from, to) in pieces of 10.
  absl::StatusOr<v1::WriteResponse> Write(const std::string& bytes, size_t from,
                                          size_t to, bool finish) {
    size_t offset = from;
    bool sent_any = false;
    return service_.Write([&](v1::WriteRequest* request) {
      if (sent_any && offset >= to) return false;
      request->Clear();
      if (!sent_any) request->set_resource_name(UploadNameOf(bytes));
      sent_any = true;
      request->set_write_offset(static_cast<int64_t>(offset));
      request->set_data(
          bytes.substr(offset, std::min<size_t>(10, to - offset)));
      offset += request->data().size();
      request->set_finish_write(finish && offset == to);
      return true;
    });
  }

  absl::StatusOr<std::string> Read(const std::string& bytes, int64_t offset,
                                   int64_t limit) {
    v1::ReadRequest request;
    request.set_resource_name("blobs/" + common::Sha256Of(bytes));
    request.set_read_offset(offset);
    request.set_read_limit(limit);
    std::string got;
    const absl::Status status =
        service_.Read(request, [&](const v1::ReadResponse& response) {
          got += response.data();
          return true;
        });
    if (!status.ok()) return status;
    return got;
  }

  int64_t Committed(const std::string& bytes) {
    v1::QueryWriteStatusRequest query;
    query.set_resource_name(UploadNameOf(bytes));
    return service_.QueryWriteStatus(query)->committed_size();
  }

  ControllerFixture fixture_;
  ArtifactService service_;
};

TEST_F(ArtifactServiceTest, InterruptedUploadIsResumed) {
  const std::string bytes = "0123456789abcdefghijklmnopqrstuvwxyz";
  EXPECT_EQ(Committed(bytes), 0);
  ASSERT_TRUE(Write(bytes, 0, 20, false).ok());
  EXPECT_EQ(Committed(bytes), 20);
  EXPECT_EQ(common::ErrorReason(Write(bytes, 10, 36, true).status()),
            "UPLOAD_OFFSET_MISMATCH");
  const auto response = Write(bytes, 20, 36, true);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->committed_size(), 36);
  EXPECT_EQ(*Read(bytes, 0, 0), bytes);
}

TEST_F(ArtifactServiceTest, PresentBlobIsNotSentAgain) {
  const std::string bytes = "abc";
  ASSERT_TRUE(Write(bytes, 0, 3, true).ok());
  int pieces = 0;
  const auto response = service_.Write([&](v1::WriteRequest* request) {
    request->set_resource_name(UploadNameOf(bytes));
    return ++pieces < 100;
  });
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->committed_size(), 3);
  EXPECT_EQ(pieces, 1);
}

TEST_F(ArtifactServiceTest, EmptyBlobIsABlob) {
  ASSERT_TRUE(Write("", 0, 0, true).ok());
  EXPECT_EQ(*Read("", 0, 0), "");
}

TEST_F(ArtifactServiceTest, RangesAreChecked) {
  const std::string bytes = "0123456789";
  ASSERT_TRUE(Write(bytes, 0, 10, true).ok());
  EXPECT_EQ(*Read(bytes, 3, 4), "3456");
  EXPECT_EQ(*Read(bytes, 10, 0), "");
  EXPECT_EQ(Read(bytes, 11, 0).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Read(bytes, -1, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Read("other", 0, 0).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ArtifactServiceTest, EveryBlobIsListedOnce) {
  for (const char* bytes : {"a", "b", "c"}) {
    ASSERT_TRUE(Write(bytes, 0, 1, true).ok());
  }
  v1::ListArtifactsRequest list;
  list.set_page_size(2);
  const auto first = service_.ListArtifacts(list);
  ASSERT_EQ(first->artifacts_size(), 2);
  list.set_page_token(first->next_page_token());
  const auto second = service_.ListArtifacts(list);
  ASSERT_EQ(second->artifacts_size(), 1);
  EXPECT_EQ(second->next_page_token(), "");
}

// A crash between the rename of a blob and its row in the database.
TEST_F(ArtifactServiceTest, BlobWithoutRowIsRecovered) {
  const v1::ArtifactRef ref = fixture_.PutBlob("abc", "");
  v1::GetArtifactRequest get;
  get.set_name("artifacts/" + ref.sha256());
  EXPECT_EQ(service_.GetArtifact(get).status().code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(service_.Recover().ok());
  EXPECT_EQ(service_.GetArtifact(get)->ref().size_bytes(), 3);
}

TEST_F(ArtifactServiceTest, MissingBlobsAreFound) {
  const v1::ArtifactRef ref = fixture_.PutBlob("abc", "");
  v1::FindMissingBlobsRequest request;
  request.add_sha256(ref.sha256());
  request.add_sha256(std::string(64, '0'));
  const auto response = service_.FindMissingBlobs(request);
  ASSERT_EQ(response->missing_sha256_size(), 1);
  EXPECT_EQ(response->missing_sha256(0), std::string(64, '0'));
  request.add_sha256("../etc/passwd");
  EXPECT_EQ(service_.FindMissingBlobs(request).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace onegrid::controller
