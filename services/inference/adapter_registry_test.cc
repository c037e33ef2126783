// Goal: adapters come and go by name; nothing outside the folder is read.
#include "services/inference/adapter_registry.h"

#include <filesystem>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/inference/tiny_adapter.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

class AdapterRegistryTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    root_ = testing::TempDir() + "/registry_" + test->name();
    std::filesystem::remove_all(root_);
    for (const std::string name : {"in/a", "in/b", "out/c"}) {
      ASSERT_TRUE(
          WriteTinyAdapter(root_ + "/" + name, config_, {.seed = ++seed_})
              .ok());
    }
    registry_ = Make({.max_adapters = 2, .folder = root_ + "/in"});
  }

  std::unique_ptr<AdapterRegistry> Make(AdapterRegistryOptions options) {
    return std::make_unique<AdapterRegistry>(std::move(options), config_,
                                             pool_);
  }

  static void ExpectRefused(const absl::Status& status, absl::StatusCode code,
                            const std::string& reason) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(common::ErrorReason(status), reason) << status;
  }

  const model::GemmaConfig config_ = TinyConfig(TinyStructure::kGemma3);
  kernels::ThreadPool pool_{2};
  uint64_t seed_ = 0;
  std::string root_;
  std::unique_ptr<AdapterRegistry> registry_;
};

TEST_F(AdapterRegistryTest, AdaptersComeAndGo) {
  const auto a = registry_->LoadBelow("first", "a", "");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ((*a)->linears(), 28);
  EXPECT_EQ((*a)->max_rank(), 4);
  EXPECT_GT((*a)->bytes(), 0);
  EXPECT_EQ(
      (*a)->sha256(),
      common::Sha256OfModel(
          {*common::Sha256OfFile(root_ + "/in/a/adapter_model.safetensors"),
           *common::Sha256OfFile(root_ + "/in/a/adapter_config.json")}));
  EXPECT_EQ(*registry_->Find("first"), *a);
  EXPECT_EQ(*registry_->Find(""), nullptr);
  ExpectRefused(registry_->Find("second").status(), absl::StatusCode::kNotFound,
                "ADAPTER_NOT_FOUND");
  // The same again is no work; other files under that name are refused.
  EXPECT_EQ(*registry_->LoadBelow("first", "a", (*a)->sha256()), *a);
  ExpectRefused(registry_->LoadBelow("first", "b", "").status(),
                absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
  // The same tensors with another scale are another adapter.
  ASSERT_TRUE(common::WriteFileAtomic(root_ + "/in/a/adapter_config.json",
                                      R"({"peft_type": "LORA", "r": 4,
                                          "lora_alpha": 4,
                                          "target_modules": "all-linear"})")
                  .ok());
  ExpectRefused(registry_->LoadBelow("first", "a", "").status(),
                absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
  ASSERT_TRUE(registry_->LoadBelow("org/second.1", "b", "").ok());
  ExpectRefused(registry_->LoadBelow("third", "b", "").status(),
                absl::StatusCode::kResourceExhausted, "TOO_MANY_ADAPTERS");
  const auto all = registry_->List();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].first, "first");
  EXPECT_EQ(all[1].first, "org/second.1");
  // Whoever has it keeps it.
  ASSERT_TRUE(registry_->Unload("first").ok());
  EXPECT_EQ((*a)->linears(), 28);
  ExpectRefused(registry_->Unload("first"), absl::StatusCode::kNotFound,
                "ADAPTER_NOT_FOUND");
  ASSERT_TRUE(registry_->LoadBelow("first", "b", "").ok());
}

TEST_F(AdapterRegistryTest, ChecksNamesAndDigests) {
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a\n"),
        std::string("\xc3\xa4"), std::string(129, 'a'), std::string(1, '\0')}) {
    ExpectRefused(registry_->LoadBelow(name, "a", "").status(),
                  absl::StatusCode::kInvalidArgument, "INVALID_REQUEST");
  }
  const auto wrong = registry_->LoadBelow("a", "a", std::string(64, '0'));
  ExpectRefused(wrong.status(), absl::StatusCode::kDataLoss, "DIGEST_MISMATCH");
  EXPECT_THAT(wrong.status().message(), HasSubstr(std::string(64, '0')));
  EXPECT_TRUE(registry_->List().empty());
}

TEST_F(AdapterRegistryTest, ReadsNothingOutsideItsFolder) {
  std::filesystem::create_directory_symlink(root_ + "/out/c",
                                            root_ + "/in/link");
  for (const std::string& path :
       {std::string(), std::string(".."), std::string("../out/c"),
        std::string("a/../../out/c"), root_ + "/out/c", std::string("link"),
        std::string("/"), std::string("a\0/../../out/c", 15)}) {
    ExpectRefused(registry_->LoadBelow("x", path, "").status(),
                  absl::StatusCode::kPermissionDenied, "ADAPTERS_NOT_ALLOWED");
  }
  // An absolute path to what is inside is one, too.
  EXPECT_TRUE(registry_->LoadBelow("x", root_ + "/in/a", "").ok());
  ExpectRefused(registry_->LoadBelow("y", "missing", "").status(),
                absl::StatusCode::kNotFound, "MISSING_FILE");
}

TEST_F(AdapterRegistryTest, WithoutAFolderNothingChanges) {
  const auto fixed = Make({});
  ASSERT_TRUE(fixed->Load("c", root_ + "/out/c", "").ok());
  ExpectRefused(fixed->LoadBelow("a", root_ + "/in/a", "").status(),
                absl::StatusCode::kPermissionDenied, "ADAPTERS_NOT_ALLOWED");
  ExpectRefused(fixed->Unload("c"), absl::StatusCode::kPermissionDenied,
                "ADAPTERS_NOT_ALLOWED");
  EXPECT_EQ(fixed->List().size(), 1u);
}

TEST_F(AdapterRegistryTest, AnotherModelsAdapterIsRefused) {
  const model::GemmaConfig other = TinyConfig(TinyStructure::kGemma4Experts);
  ASSERT_TRUE(WriteTinyAdapter(root_ + "/in/other", other).ok());
  const auto status = registry_->LoadBelow("o", "other", "").status();
  ExpectRefused(status, absl::StatusCode::kInvalidArgument, "ADAPTER_MISMATCH");
  ASSERT_TRUE(common::WriteFileAtomic(root_ + "/in/a/adapter_model.safetensors",
                                      "not a file")
                  .ok());
  EXPECT_FALSE(registry_->LoadBelow("a", "a", "").ok());
  EXPECT_TRUE(registry_->List().empty());
}

}  // namespace
}  // namespace onegrid::inference
