#include "services/common/adapter_files.h"

#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::common {
namespace {

class AdapterFilesTest : public testing::Test {
 protected:
  AdapterFilesTest()
      : folder_(testing::TempDir() + "/" +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directories(folder_);
  }

  std::string Touch(const std::string& name) {
    const std::string path = folder_ + "/" + name;
    EXPECT_TRUE(WriteFileAtomic(path, "").ok());
    return path;
  }

  const std::string folder_;
};

TEST_F(AdapterFilesTest, AFolderHasTensorsAndTheirConfig) {
  const std::string ours = Touch("adapter.safetensors");
  EXPECT_EQ(ErrorReason(FindAdapterFiles(folder_).status()), "MISSING_FILE");
  const std::string config = Touch("adapter_config.json");
  EXPECT_EQ(FindAdapterFiles(folder_)->tensors, ours);
  EXPECT_EQ(FindAdapterFiles(folder_)->config, config);
  // What PEFT itself would read.
  const std::string named = Touch("adapter_model.safetensors");
  EXPECT_EQ(FindAdapterFiles(folder_)->tensors, named);
}

TEST_F(AdapterFilesTest, AFileIsAGguf) {
  const std::string path = Touch("a.gguf");
  EXPECT_EQ(FindAdapterFiles(path)->tensors, path);
  EXPECT_EQ(FindAdapterFiles(path)->config, "");
}

TEST_F(AdapterFilesTest, OthersAreRefused) {
  EXPECT_EQ(ErrorReason(FindAdapterFiles(folder_ + "/no").status()),
            "MISSING_FILE");
  Touch("adapter_config.json");
  Touch("adapter_model.bin");
  EXPECT_EQ(ErrorReason(FindAdapterFiles(folder_).status()),
            "UNSUPPORTED_ADAPTER");
  const std::string alone = Touch("adapter_model.safetensors");
  EXPECT_EQ(ErrorReason(FindAdapterFiles(alone).status()),
            "UNSUPPORTED_ADAPTER");
}

}  // namespace
}  // namespace onegrid::common
