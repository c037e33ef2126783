#include "services/exporter/model_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/common/version.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/test_model.h"

namespace onegrid::exporter {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class ModelCardTest : public testing::Test {
 protected:
  ModelCardTest() : model_(*GridModel::Open(ImportTestModel(), "")) {
    input_.format = v1::GGUF;
    input_.files = {"model.gguf", "Modelfile"};
    input_.base_name = "tiny";
    input_.base_sha256 = "ba5e";
    input_.tensors = 15;
    input_.tensors_bit_exact = 15;
  }

  std::string Card() const { return ModelCard(*model_, input_); }

  std::unique_ptr<GridModel> model_;
  CardInput input_;
};

TEST_F(ModelCardTest, FrontMatterSaysWhatTheModelIs) {
  EXPECT_THAT(Card(), StartsWith(R"(---
license: gemma
base_model: "tiny"
base_model_relation: finetune
library_name: gguf
pipeline_tag: text-generation
tags:
- onegrid
- gemma3
---

# tiny
)"));
  input_.tuned = false;
  EXPECT_THAT(Card(), HasSubstr("base_model_relation: quantized\n"));
  input_.format = v1::PEFT;
  EXPECT_THAT(Card(), HasSubstr("base_model_relation: adapter\n"));
  EXPECT_THAT(Card(), HasSubstr("library_name: peft\n"));
  input_.format = v1::COMPRESSED_TENSORS;
  EXPECT_THAT(Card(), HasSubstr("- compressed-tensors\n---"));
}

TEST_F(ModelCardTest, LineageNamesEverythingByDigest) {
  v1::BaseModel* base = input_.origin.mutable_base_model();
  base->set_name("baseModels/b");
  base->mutable_source()->set_sha256("50ce");
  base->mutable_source()->set_file_name("/home/someone/models/b.gguf");
  v1::TuningJob* job = input_.origin.mutable_tuning_job();
  job->set_name("tuningJobs/t1");
  job->set_mode(v1::QLORA_QAT);
  job->mutable_grid()->set_plan("mobile_e2b");
  v1::Dataset* dataset = input_.origin.mutable_dataset();
  dataset->set_name("datasets/d");
  dataset->mutable_train()->mutable_artifact()->set_sha256("7a1");
  dataset->mutable_train()->set_examples(812);
  for (const char* row :
       {"| base model | baseModels/b |\n", "SHA-256 | `ba5e` |\n",
        "| imported from | b.gguf, SHA-256 `50ce` |\n",
        "| tuning job | tuningJobs/t1 |\n", "| mode | `QLORA_QAT` |\n",
        "| quantization plan | mobile\\_e2b |\n", "| dataset | datasets/d |\n",
        "| split train | 812 examples, SHA-256 `7a1` |\n"}) {
    EXPECT_THAT(Card(), HasSubstr(row));
  }
  EXPECT_THAT(Card(), HasSubstr(absl::StrCat("OneGrid ", common::kVersion)));
  EXPECT_THAT(Card(), Not(HasSubstr("someone")));
  EXPECT_THAT(Card(), HasSubstr("15 of 15 tensors are equal bit for bit.\n"));
}

TEST_F(ModelCardTest, GridsAreThoseOfTheModelAndItsFormat) {
  EXPECT_THAT(Card(), HasSubstr("| `q_proj` | `int4_g32` | 1 | Q4_0 |\n"));
  EXPECT_THAT(Card(), HasSubstr("| `token_embd` | `int8_g32` | 1 | Q8_0 |\n"));
  input_.format = v1::COMPRESSED_TENSORS;
  EXPECT_THAT(Card(), HasSubstr("| `q_proj` | `int4_g32` | 1 | pack-quantized, "
                                "4 bits, groups of 32 |\n"));
  EXPECT_THAT(Card(), HasSubstr("`int8_g32` | 1 | float32 |\n"));
}

TEST_F(ModelCardTest, NamesOfUsersAreTextAndNothingElse) {
  const std::string name =
      "x\"\n---\nlicense: mit\n# <script> | [a](http://b) `c` *d*";
  input_.base_name = name;
  input_.origin.mutable_base_model()->set_name(name);
  input_.origin.mutable_tuning_job()->set_name(name);
  input_.origin.mutable_dataset()->set_name(name);
  const std::string card = Card();
  EXPECT_THAT(card, Not(HasSubstr("\nlicense: mit")));
  EXPECT_THAT(card, Not(HasSubstr("base_model: ")));  // No name for the Hub.
  EXPECT_THAT(card, Not(HasSubstr(" <script>")));
  EXPECT_THAT(card,
              HasSubstr(R"(\<script\> \| \[a\]\(http\://b\) \`c\` \*d\*)"));
  input_.base_name = "/home/someone/tiny";
  input_.origin.Clear();
  EXPECT_THAT(Card(), Not(HasSubstr("someone")));
  EXPECT_THAT(Card(), HasSubstr("# tiny\n"));
}

}  // namespace
}  // namespace onegrid::exporter
