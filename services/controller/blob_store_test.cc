#include "services/controller/blob_store.h"

#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace {

class BlobStoreTest : public testing::Test {
 protected:
  BlobStoreTest() {
    std::string name = testing::TempDir() + "/blobs.XXXXXX";
    root_ = ::mkdtemp(name.data());
    Reopen();
  }

  void Reopen() { blobs_ = std::move(*BlobStore::Open(root_)); }

  static UploadName NameOf(const std::string& bytes) {
    UploadName name;
    name.uuid = "0-1";
    name.sha256 = common::Sha256Of(bytes);
    name.size = static_cast<int64_t>(bytes.size());
    return name;
  }

  std::string root_;
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(BlobStoreTest, UploadGoesOnAfterARestart) {
  const std::string bytes(100'000, 'x');
  const UploadName name = NameOf(bytes);
  {
    auto upload = std::move(*blobs_->OpenUpload(name));
    ASSERT_TRUE(upload->Append(bytes.substr(0, 70'000)).ok());
  }
  Reopen();
  EXPECT_EQ(blobs_->CommittedSize(name), 70'000);
  EXPECT_FALSE(blobs_->Has(name.sha256));
  {
    auto upload = std::move(*blobs_->OpenUpload(name));
    ASSERT_TRUE(upload->Append(bytes.substr(70'000)).ok());
    ASSERT_TRUE(upload->Finish().ok());
  }
  EXPECT_EQ(*common::ReadFile(blobs_->BlobPath(name.sha256)), bytes);
  EXPECT_EQ(blobs_->CommittedSize(name), 0);
}

TEST_F(BlobStoreTest, WrongBytesAreDropped) {
  UploadName name = NameOf("right");
  auto upload = std::move(*blobs_->OpenUpload(name));
  ASSERT_TRUE(upload->Append("wrong").ok());
  const absl::Status status = upload->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(status), "DIGEST_MISMATCH");
  EXPECT_EQ(common::ErrorMetadata(status).at("expected"), name.sha256);
  EXPECT_FALSE(blobs_->Has(name.sha256));
  EXPECT_EQ(blobs_->CommittedSize(name), 0);
}

TEST_F(BlobStoreTest, MoreBytesThanNamedAreRefused) {
  auto upload = std::move(*blobs_->OpenUpload(NameOf("abc")));
  EXPECT_EQ(common::ErrorReason(upload->Append("abcd")), "DIGEST_MISMATCH");
  EXPECT_TRUE(upload->Append("abc").ok());
  EXPECT_TRUE(upload->Finish().ok());
}

TEST_F(BlobStoreTest, OneWriterAtATime) {
  const UploadName name = NameOf("abc");
  auto upload = std::move(*blobs_->OpenUpload(name));
  EXPECT_EQ(common::ErrorReason(blobs_->OpenUpload(name).status()),
            "UPLOAD_BUSY");
  upload = nullptr;
  EXPECT_TRUE(blobs_->OpenUpload(name).ok());
}

// A file size limit fails a write in the same way as a full disk does, after
// part of the bytes.
TEST_F(BlobStoreTest, FullDiskKeepsWhatWasCommittedBefore) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit = {};
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  const std::string bytes(8000, 'x');
  const UploadName name = NameOf(bytes);
  auto upload = std::move(*blobs_->OpenUpload(name));
  ASSERT_TRUE(upload->Append(bytes.substr(0, 3000)).ok());
  const rlimit limit = {5000, old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const absl::Status status = upload->Append(bytes.substr(3000));
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(common::ErrorReason(status), "DISK_FULL");
  EXPECT_EQ(blobs_->CommittedSize(name), 3000);
  ASSERT_TRUE(upload->Append(bytes.substr(3000)).ok());
  EXPECT_TRUE(upload->Finish().ok());
}

TEST_F(BlobStoreTest, ShardsOfAModelLieTogetherUnderTheirNames) {
  std::vector<v1::ArtifactRef> files;
  for (const std::string bytes : {"first", "second"}) {
    auto upload = std::move(*blobs_->OpenUpload(NameOf(bytes)));
    ASSERT_TRUE(upload->Append(bytes).ok());
    ASSERT_TRUE(upload->Finish().ok());
    files.emplace_back().set_sha256(NameOf(bytes).sha256);
    files.back().set_file_name(bytes + ".gguf");
  }
  for (int i = 0; i < 2; ++i) {  // The second time they are there.
    const auto path = blobs_->ModelPath("both", files);
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(*path, root_ + "/models/both/first.gguf");
    EXPECT_EQ(*common::ReadFile(*path), "first");
    EXPECT_EQ(*common::ReadFile(root_ + "/models/both/second.gguf"), "second");
  }
  EXPECT_EQ(*blobs_->ModelPath("one", {files[1]}),
            blobs_->BlobPath(files[1].sha256()));
  for (const char* name : {"", "..", "a/b", "/etc/passwd"}) {
    files[1].set_file_name(name);
    EXPECT_EQ(common::ErrorReason(blobs_->ModelPath("bad", files).status()),
              "BAD_FILE_NAME")
        << name;
  }
}

TEST(BlobNameTest, MalformedNamesAreRefused) {
  const std::string sha256(64, 'a');
  EXPECT_TRUE(ParseUploadName("uploads/1-2/blobs/" + sha256 + "/7").ok());
  for (const std::string& name :
       {std::string("uploads/1-2/blobs/abc/7"),
        "uploads/../blobs/" + sha256 + "/7", "uploads/1/blobs/" + sha256,
        "uploads/1/blobs/" + sha256 + "/-7",
        "uploads//blobs/" + sha256 + "/7"}) {
    EXPECT_EQ(common::ErrorReason(ParseUploadName(name).status()),
              "INVALID_RESOURCE_NAME")
        << name;
  }
  EXPECT_TRUE(ParseBlobName("blobs/" + sha256).ok());
  EXPECT_FALSE(ParseBlobName("blobs/../" + sha256).ok());
}

}  // namespace
}  // namespace onegrid::controller
