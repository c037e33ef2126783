#include "services/controller/controller_testing.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/files.h"

namespace onegrid::controller {

ControllerFixture::ControllerFixture() {
  std::string name = testing::TempDir() + "/controller.XXXXXX";
  folder_ = ::mkdtemp(name.data());
  store_ = std::move(*Store::Open(folder_ + "/controller.db"));
  blobs_ = std::move(*BlobStore::Open(folder_));
  context_.store = store_.get();
  context_.blobs = blobs_.get();
  context_.changes = &changes_;
  context_.now = [this] { return now_; };
}

ControllerFixture::~ControllerFixture() {
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

v1::ArtifactRef ControllerFixture::PutBlob(absl::string_view bytes,
                                           const std::string& name) {
  v1::ArtifactRef ref;
  ref.set_sha256(common::Sha256Of(bytes));
  ref.set_size_bytes(static_cast<int64_t>(bytes.size()));
  ref.set_file_name(name);
  EXPECT_TRUE(
      common::WriteFileAtomic(blobs_->BlobPath(ref.sha256()), bytes).ok());
  return ref;
}

v1::BaseModel ControllerFixture::MakeBaseModel(const std::string& id) {
  CreateCall call;
  call.id = id;
  call.is_job = true;
  call.kind = v1::IMPORT;
  v1::BaseModel base;
  *base.mutable_source() = PutBlob("source", "source.gguf");
  *base.mutable_model() = PutBlob("base", "base.gguf");
  const absl::Status status =
      context_.Commit([&](StoreTransaction& transaction) -> absl::Status {
        RETURN_IF_ERROR(InsertResource(context_, transaction, call, &base));
        JobUpdate update;
        RETURN_IF_ERROR(
            TransitionJob(context_, transaction, update, &base).status());
        update.event = JobEvent::kSucceed;
        return TransitionJob(context_, transaction, update, &base).status();
      });
  EXPECT_TRUE(status.ok()) << status;
  return base;
}

v1::Dataset ControllerFixture::MakeDataset(const std::string& id) {
  CreateCall call;
  call.id = id;
  v1::Dataset dataset;
  *dataset.mutable_train()->mutable_artifact() = PutBlob("1", "train.jsonl");
  *dataset.mutable_validation()->mutable_artifact() =
      PutBlob("2", "validation.jsonl");
  *dataset.mutable_test()->mutable_artifact() = PutBlob("3", "test.jsonl");
  const absl::Status status =
      context_.Commit([&](StoreTransaction& transaction) {
        return InsertResource(context_, transaction, call, &dataset);
      });
  EXPECT_TRUE(status.ok()) << status;
  return dataset;
}

void FakeRunner::Start(const std::string& key, const ServerSpec& spec) {
  absl::MutexLock lock(&mutex_);
  const auto [found, inserted] = servers_.try_emplace(key);
  if (!inserted) return;
  found->second.first = spec;
  found->second.second.state = ServerStatus::State::kStarting;
  if (serve_at_once_) {
    found->second.second.state = ServerStatus::State::kServing;
    found->second.second.endpoint = absl::StrCat("host:", key);
  }
}

ServerStatus FakeRunner::StatusOf(const std::string& key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = servers_.find(key);
  return found == servers_.end() ? ServerStatus() : found->second.second;
}

void FakeRunner::Stop(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  servers_.erase(key);
}

std::vector<std::string> FakeRunner::Keys() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> keys;
  for (const auto& [key, server] : servers_) keys.push_back(key);
  return keys;
}

void FakeRunner::Set(const std::string& key, const ServerStatus& status) {
  absl::MutexLock lock(&mutex_);
  servers_[key].second = status;
}

ServerSpec FakeRunner::SpecOf(const std::string& key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = servers_.find(key);
  return found == servers_.end() ? ServerSpec() : found->second.first;
}

}  // namespace onegrid::controller
