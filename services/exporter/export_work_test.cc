#include "services/exporter/export_work.h"

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/test_model.h"

namespace onegrid::exporter {
namespace {

// A context whose blobs are local files, named by their paths.
class FakeContext : public common::WorkContext {
 public:
  FakeContext() : scratch_(TestPath("scratch")) {
    EXPECT_TRUE(common::MakeFolder(scratch_).ok());
  }

  const v1::WorkItem& item() const override { return work; }
  absl::StatusOr<std::string> Fetch(const v1::ArtifactRef& ref) override {
    return ref.sha256();
  }
  absl::StatusOr<v1::ArtifactRef> Publish(
      const std::string& path, const std::string& file_name,
      const std::string& media_type) override {
    v1::ArtifactRef ref;
    ref.set_sha256(path);
    ref.set_file_name(file_name);
    ref.set_media_type(media_type);
    published[file_name] = ref;
    return ref;
  }
  void ReportProgress(const v1::Progress& progress) override {
    stages[progress.stage()] = progress;
  }
  absl::Status CommitCheckpoint(const v1::Checkpoint&) override {
    return absl::UnimplementedError("exports have no checkpoints");
  }
  bool cancelled() const override { return stop; }
  const std::string& scratch_dir() const override { return scratch_; }

  v1::WorkItem work;
  bool stop = false;
  std::map<std::string, v1::ArtifactRef> published;
  std::map<std::string, v1::Progress> stages;

 private:
  std::string scratch_;
};

void SetExport(const std::string& base, FakeContext& context) {
  const TestTuned tuned = WriteTestTuned(base);
  context.work.set_kind(v1::EXPORT);
  v1::ExportWork* work = context.work.mutable_export_();
  work->mutable_base()->set_sha256(base);
  work->set_base_name("tiny");
  work->mutable_tuned()->mutable_folded()->set_sha256(tuned.folded);
  work->mutable_tuned()->mutable_adapter()->set_sha256(tuned.adapter);
  work->mutable_tuned()->mutable_adapter_config()->set_sha256(
      tuned.adapter_config);
}

TEST(ExportWorkTest, AnImportPublishesTheModelAndItsReport) {
  FakeContext context;
  context.work.set_kind(v1::IMPORT);
  context.work.mutable_import()
      ->mutable_base_model()
      ->mutable_source()
      ->set_sha256(WriteTestModel("source.gguf"));
  const auto result = HandleWork(context, 1);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->import().report().tensors_on_grid(), 7);
  EXPECT_EQ(result->import().model().media_type(), "application/x-gguf");
  EXPECT_EQ(context.published.size(), 1);
  EXPECT_EQ(context.stages["import"].step(), 8);
  EXPECT_EQ(context.stages["import"].total_steps(), 8);
}

TEST(ExportWorkTest, AnExportPublishesEveryFile) {
  FakeContext context;
  SetExport(ImportTestModel(), context);
  const auto result = HandleWork(context, 1);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->export_().artifacts_size(), 4);
  EXPECT_EQ(result->export_().artifacts(0).format(), v1::GGUF);
  EXPECT_EQ(result->export_().artifacts(0).files(0).file_name(), "model.gguf");
  EXPECT_EQ(result->export_().equivalence().tensors(), 60);
  for (const char* file :
       {"model.gguf", "config.json", "model.safetensors", "tokenizer.json",
        "adapter.gguf", "adapter_config.json", "adapter_model.safetensors",
        "Modelfile", "README.md"}) {
    EXPECT_EQ(context.published.count(file), 1) << file;
  }
  EXPECT_EQ(context.published["config.json"].media_type(), "application/json");
}

TEST(ExportWorkTest, OnlyTheFormatsAskedForAreMade) {
  FakeContext context;
  SetExport(ImportTestModel(), context);
  context.work.mutable_export_()->mutable_export_()->add_formats(v1::PEFT);
  const auto result = HandleWork(context, 1);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->export_().artifacts_size(), 1);
  EXPECT_EQ(context.published.size(), 3);
}

TEST(ExportWorkTest, CancellingStopsBeforeAnythingIsPublished) {
  FakeContext context;
  SetExport(ImportTestModel(), context);
  context.stop = true;
  EXPECT_EQ(common::ErrorReason(HandleWork(context, 1).status()), "CANCELLED");
  EXPECT_TRUE(context.published.empty());
}

TEST(ExportWorkTest, RefusesOtherGridsAndOtherWork) {
  FakeContext context;
  context.work.set_kind(v1::IMPORT);
  context.work.mutable_import()->mutable_base_model()->set_grid(v1::BF16);
  EXPECT_EQ(common::ErrorReason(HandleWork(context, 1).status()),
            "UNSUPPORTED_GRID");
  context.work.set_kind(v1::TUNE);
  EXPECT_EQ(common::ErrorReason(HandleWork(context, 1).status()),
            "UNSUPPORTED_WORK");
}

}  // namespace
}  // namespace onegrid::exporter
