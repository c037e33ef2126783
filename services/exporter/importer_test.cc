#include "services/exporter/importer.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/test_model.h"
#include "services/model/gguf_reader.h"

namespace onegrid::exporter {
namespace {

using quant::GgmlType;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

TEST(ImporterTest, WritesAFileOnTheGridWithItsMetadata) {
  const std::string source = WriteTestModel("source.gguf");
  const std::string out = TestPath("base.gguf");
  const auto report = ImportGguf(source, out, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->architecture(), "gemma3");
  EXPECT_EQ(report->tensors_on_grid(), 7);
  EXPECT_EQ(report->groups(), (64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3) / 32);
  EXPECT_EQ(report->groups_kept(), 0);
  // Normal weights in 16 levels: a few percent to some ten percent.
  EXPECT_GT(report->relative_rms_error(), 0.05);
  EXPECT_LT(report->relative_rms_error(), 0.12);
  EXPECT_EQ(report->tokenizer_sha256().size(), 64);
  ASSERT_TRUE(GridModel::Open(out, "").ok());
  const auto file = model::GgufFile::Open(out);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*(*file)->GetU32("general.file_type"), 2);
  EXPECT_EQ(*(*file)->GetU32("general.quantization_version"), 2);
  EXPECT_EQ((*file)->GetStrings("tokenizer.ggml.tokens")->size(), 300);
}

TEST(ImporterTest, ImportingAgainKeepsEveryGroup) {
  const std::string base = ImportTestModel();
  const std::string again = TestPath("again.gguf");
  const auto report = ImportGguf(base, again, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->groups_kept(), report->groups());
  EXPECT_EQ(report->relative_rms_error(), 0);
  EXPECT_EQ(*common::Sha256OfFile(base), *common::Sha256OfFile(again));
}

TEST(ImporterTest, ThreadsDoNotChangeTheResult) {
  const std::string source = WriteTestModel("source.gguf");
  const std::string one = TestPath("one.gguf");
  const std::string three = TestPath("three.gguf");
  ASSERT_TRUE(ImportGguf(source, one, {}).ok());
  ASSERT_TRUE(ImportGguf(source, three, {3, {}}).ok());
  EXPECT_EQ(*common::Sha256OfFile(one), *common::Sha256OfFile(three));
}

TEST(ImporterTest, KeepsAQ8EmbeddingAndEncodesAFloatOne) {
  const std::string base = ImportTestModel();
  const std::string source = TestPath("source.gguf");
  const auto before = model::GgufFile::Open(source);
  const auto after = model::GgufFile::Open(base);
  EXPECT_EQ((*before)->Find("token_embd.weight")->data,
            (*after)->Find("token_embd.weight")->data);

  TestModelOptions options;
  options.embedding = GgmlType::kF32;
  const std::string out = TestPath("encoded.gguf");
  ASSERT_TRUE(ImportGguf(WriteTestModel("f32.gguf", options), out, {}).ok());
  const auto encoded = model::GgufFile::Open(out);
  EXPECT_EQ((*encoded)->Find("token_embd.weight")->type, GgmlType::kQ8_0);
}

TEST(ImporterTest, TakesLlamaCppsQ4_0WithItsNegativeScales) {
  TestModelOptions options;
  options.linears = GgmlType::kQ4_0;
  const std::string out = TestPath("base.gguf");
  const auto report = ImportGguf(WriteTestModel("q4.gguf", options), out, {});
  ASSERT_TRUE(report.ok()) << report.status();
  const auto grid = GridModel::Open(out, "");
  ASSERT_TRUE(grid.ok());
  for (const auto& spec : (*grid)->linears()) {
    EXPECT_TRUE((*grid)->Linear(spec).ok()) << spec.gguf_name;
  }
  // Its own rounding to 16 levels is done; what is left is the scale's.
  EXPECT_LT(report->relative_rms_error(), 0.06);
}

// The import works on the values, whatever the type that holds them.
TEST(ImporterTest, TakesTypesWhoseCodesIndexATable) {
  for (const GgmlType type : {GgmlType::kIQ4_NL, GgmlType::kMXFP4}) {
    TestModelOptions options;
    options.linears = type;
    const std::string source = WriteTestModel("table.gguf", options);
    const std::string out = TestPath("base.gguf");
    const auto report = ImportGguf(source, out, {});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->tensors_on_grid(), 7);
    EXPECT_GT(report->relative_rms_error(), 0);
    EXPECT_LT(report->relative_rms_error(), 0.12);
    EXPECT_TRUE(GridModel::Open(out, "").ok());
  }
}

TEST(ImporterTest, RefusesAnotherArchitecture) {
  TestModelOptions options;
  options.architecture = "llama";
  const std::string out = TestPath("base.gguf");
  const auto report =
      ImportGguf(WriteTestModel("llama.gguf", options), out, {});
  EXPECT_EQ(common::ErrorReason(report.status()), "UNSUPPORTED_ARCHITECTURE");
  EXPECT_FALSE(Exists(out));
}

TEST(ImporterTest, RefusesATensorThatIsNotTheArchitectures) {
  TestModelOptions options;
  options.extra_tensor = "rope_freqs.weight";
  const auto report = ImportGguf(WriteTestModel("extra.gguf", options),
                                 TestPath("base.gguf"), {});
  EXPECT_EQ(common::ErrorReason(report.status()), "UNSUPPORTED_TENSOR");
  EXPECT_NE(report.status().message().find("rope_freqs.weight"),
            std::string::npos);
}

TEST(ImporterTest, NamesATensorWithANan) {
  TestModelOptions options;
  options.nan_weight = true;
  const std::string out = TestPath("base.gguf");
  const auto report = ImportGguf(WriteTestModel("nan.gguf", options), out, {});
  EXPECT_EQ(common::ErrorReason(report.status()), "UNSUPPORTED_TENSOR");
  EXPECT_NE(report.status().message().find("blk.0.ffn_up.weight"),
            std::string::npos);
  EXPECT_FALSE(Exists(out));
}

TEST(ImporterTest, RefusesTruncatedAndForeignFiles) {
  const std::string source = WriteTestModel("source.gguf");
  const std::string bytes = *common::ReadFile(source);
  const std::string out = TestPath("base.gguf");
  for (const size_t size :
       {size_t{0}, size_t{3}, size_t{40}, bytes.size() / 2, bytes.size() - 1}) {
    const std::string cut = TestPath("cut.gguf");
    ASSERT_TRUE(common::WriteFileAtomic(cut, bytes.substr(0, size)).ok());
    EXPECT_FALSE(ImportGguf(cut, out, {}).ok()) << size;
  }
  const std::string text = TestPath("text.gguf");
  ASSERT_TRUE(common::WriteFileAtomic(text, "not a model\n").ok());
  EXPECT_FALSE(ImportGguf(text, out, {}).ok());
  EXPECT_FALSE(ImportGguf(TestPath("missing.gguf"), out, {}).ok());
  EXPECT_FALSE(Exists(out));
}

TEST(ImporterTest, LeavesNothingWhenStopped) {
  const std::string source = WriteTestModel("source.gguf");
  const std::string out = TestPath("base.gguf");
  ImportOptions options;
  int64_t calls = 0;
  options.progress = [&calls](absl::string_view, int64_t done,
                              int64_t total) -> absl::Status {
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(total, 8);
    if (done == 5) return absl::AbortedError("stop");
    return absl::OkStatus();
  };
  EXPECT_EQ(ImportGguf(source, out, options).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_FALSE(Exists(out));
}

// A bound on the size of files stands for a disk that fills up.
TEST(ImporterTest, LeavesNothingWhenTheDiskIsFull) {
  const std::string source = WriteTestModel("source.gguf");
  const std::string folder = TestPath("full");
  ASSERT_TRUE(common::MakeFolder(folder).ok());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto report = ImportGguf(source, folder + "/base.gguf", {});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  EXPECT_FALSE(report.ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_TRUE(ImportGguf(source, folder + "/base.gguf", {}).ok());
}

}  // namespace
}  // namespace onegrid::exporter
