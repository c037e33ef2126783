#include "services/model/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/atomic_file.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::ElementsAre;

TEST(ShardPlanTest, FillsShardsInOrder) {
  EXPECT_THAT(*PlanShards({4, 4, 4, 4, 4}, 8), ElementsAre(0, 2, 4));
  EXPECT_THAT(*PlanShards({4, 4}, 8), ElementsAre(0));
  EXPECT_THAT(*PlanShards({4, 5}, 8), ElementsAre(0, 1));
  EXPECT_THAT(*PlanShards({}, 8), ElementsAre(0));
}

TEST(ShardPlanTest, ATensorLargerThanTheLimitHasAShardOfItsOwn) {
  EXPECT_THAT(*PlanShards({9, 1}, 8), ElementsAre(0, 1));
  EXPECT_THAT(*PlanShards({1, 9, 1, 1}, 8), ElementsAre(0, 1, 2));
  EXPECT_THAT(*PlanShards({9, 9}, 8), ElementsAre(0, 1));
}

TEST(ShardPlanTest, NoLimitIsOneShard) {
  EXPECT_THAT(*PlanShards({INT64_MAX, INT64_MAX}, 0), ElementsAre(0));
  EXPECT_THAT(*PlanShards({INT64_MAX, INT64_MAX}, INT64_MAX),
              ElementsAre(0, 1));
}

TEST(ShardPlanTest, RefusesNegativeSizesAndTooManyShards) {
  EXPECT_EQ(common::ErrorReason(PlanShards({1}, -1).status()),
            "INVALID_SHARD_SIZE");
  std::vector<int64_t> bytes(kShardsMax, 2);
  EXPECT_EQ(PlanShards(bytes, 1)->size(), kShardsMax);
  bytes.push_back(2);
  EXPECT_EQ(common::ErrorReason(PlanShards(bytes, 1).status()),
            "INVALID_SHARD_SIZE");
}

TEST(ShardPlanTest, NamesAreThoseOfLlamaCppAndHuggingFace) {
  EXPECT_EQ(ShardName("model", 0, 3, ".gguf"), "model-00001-of-00003.gguf");
  EXPECT_EQ(ShardName("model", 11, 12, ".safetensors"),
            "model-00012-of-00012.safetensors");
  EXPECT_EQ(ShardName("model", 0, 1, ".gguf"), "model.gguf");
}

TEST(ShardPlanTest, AFailedCommitLeavesNoneOfTheFiles) {
  const std::string first = WriteTestFile("commit-first", "");
  const std::string folder = WriteTestFile("commit-folder", "");
  ASSERT_EQ(std::remove(folder.c_str()), 0);
  std::vector<std::unique_ptr<AtomicFile>> files;
  files.push_back(*AtomicFile::Create(first));
  files.push_back(*AtomicFile::Create(folder));
  // What the second is to be renamed to is a folder by then.
  ASSERT_TRUE(common::MakeFolder(folder + "/inside").ok());
  EXPECT_FALSE(CommitAll(files).ok());
  EXPECT_FALSE(common::ReadFile(first).ok());
}

TEST(ShardPlanTest, RemovesWhatAnEarlierWriteLeftAndNothingElse) {
  const std::string path = WriteTestFile("removal", "");
  ASSERT_EQ(std::remove(path.c_str()), 0);
  ASSERT_TRUE(common::MakeFolder(path).ok());
  const std::vector<std::pair<std::string, bool>> files = {
      {"m.gguf", false},
      {"m-00001-of-00003.gguf", false},
      {"m-00001-of-00002.gguf", true},  // Kept by name.
      {"m-0001-of-00003.gguf", true},
      {"m-00001-of-0000x.gguf", true},
      {"m-00001-of-00003.gguf.bak", true},
      {"mm.gguf", true},
      {"m.safetensors", true}};
  for (const auto& [name, stays] : files) {
    ASSERT_TRUE(common::WriteFileAtomic(path + "/" + name, "x").ok());
  }
  ASSERT_TRUE(
      RemoveOtherShards(path, "m", ".gguf", {"m-00001-of-00002.gguf"}).ok());
  for (const auto& [name, stays] : files) {
    EXPECT_EQ(common::ReadFile(path + "/" + name).ok(), stays) << name;
  }
}

}  // namespace
}  // namespace onegrid::model
