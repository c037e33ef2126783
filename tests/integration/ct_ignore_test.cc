// Goal: compressed-tensors is told of every layer of class Linear that a folder
// holds as floats; one that is not named it takes for packed, and does not
// load. Method: tiny models of Gemma 4's structures, whose projection of the
// layers' own inputs and whose routers stay floats.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/files.h"
#include "services/exporter/ct_export.h"
#include "services/exporter/grid_model.h"
#include "services/inference/tiny_model.h"
#include "services/model/safetensors_folder.h"

namespace onegrid {
namespace {

using inference::TinyStructure;
using testing::ElementsAre;
using testing::UnorderedElementsAreArray;

class CtIgnoreTest : public testing::Test {
 protected:
  void Export(TinyStructure structure) {
    folder_ = testing::TempDir() + "/ct_ignore";
    ASSERT_TRUE(common::MakeFolder(folder_).ok());
    const std::string path = folder_ + "/base.gguf";
    inference::TinyModelOptions options;
    options.structure = structure;
    ASSERT_TRUE(inference::WriteTinyModel(path, options).ok());
    const auto model = exporter::GridModel::Open(path, "");
    ASSERT_TRUE(model.ok()) << model.status();
    const auto files =
        exporter::WriteCompressedTensors(**model, folder_, 0, {});
    ASSERT_TRUE(files.ok()) << files.status();
    const auto config =
        nlohmann::json::parse(*common::ReadFile(folder_ + "/config.json"));
    ignored_ =
        config["quantization_config"]["ignore"].get<std::vector<std::string>>();
  }

  // Matrices of the folder that are neither packed nor embeddings: a Linear's
  // weight has two dimensions, that of experts three.
  std::vector<std::string> FloatLinears() {
    std::vector<std::string> names = {"lm_head"};  // Tied: not in the folder.
    const auto weights = model::SafetensorsFolder::Open(folder_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    for (const auto& [name, file] : (*weights)->tensors()) {
      if ((*weights)->Find(name)->shape.size() == 2 &&
          absl::EndsWith(name, ".weight") &&
          !absl::StrContains(name, "embed_tokens")) {
        names.emplace_back(absl::StripSuffix(name, ".weight"));
      }
    }
    return names;
  }

  std::string folder_;
  std::vector<std::string> ignored_;
};

TEST_F(CtIgnoreTest, TheProjectionOfTheLayersInputsIsNamed) {
  Export(TinyStructure::kGemma4Edge);
  EXPECT_THAT(ignored_,
              ElementsAre("lm_head", "model.per_layer_model_projection"));
  EXPECT_THAT(ignored_, UnorderedElementsAreArray(FloatLinears()));
}

TEST_F(CtIgnoreTest, RoutersAreNamed) {
  Export(TinyStructure::kGemma4Experts);
  EXPECT_THAT(ignored_, ElementsAre("lm_head", "model.layers.0.router.proj",
                                    "model.layers.1.router.proj",
                                    "model.layers.2.router.proj",
                                    "model.layers.3.router.proj"));
  EXPECT_THAT(ignored_, UnorderedElementsAreArray(FloatLinears()));
}

TEST_F(CtIgnoreTest, OfGemma3OnlyTheHeadIs) {
  Export(TinyStructure::kGemma3);
  EXPECT_THAT(ignored_, ElementsAre("lm_head"));
}

}  // namespace
}  // namespace onegrid
